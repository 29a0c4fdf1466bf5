#include "median.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <ATen/ops/empty.h>
#include <hansa/plugin.hpp>

namespace hansa::median {
namespace {

constexpr std::int64_t kLanes = 32;  // coordinates that are sorted together: two cache lines of each client

using Four = float __attribute__((vector_size(16)));  // what GCC and Clang turn into vector instructions as it stands
struct Row {                                          // kLanes coordinates of one client
  Four lanes[kLanes / 4];
};

void exchange(Row& low, Row& high) {
  for (std::int64_t i = 0; i < kLanes / 4; ++i) {
    const Four a = low.lanes[i], b = high.lanes[i];
    low.lanes[i] = b < a ? b : a;
    high.lanes[i] = b < a ? a : b;
  }
}

// Sorts every lane over the rows: Batcher's merge exchange (Knuth, TAOCP 3, algorithm 5.2.2M). The comparators
// do not depend on the values, so the lanes go through them together, and no branch is mispredicted.
void sort_lanes(std::vector<Row>& block) {
  const auto rows = block.size();
  if (rows < 2) return;
  const std::size_t top = std::bit_ceil(rows) / 2;
  for (std::size_t p = top; p > 0; p /= 2) {
    std::size_t q = top, r = 0, distance = p;
    while (true) {
      for (std::size_t i = 0; i + distance < rows; ++i) {
        if ((i & p) == r) exchange(block[i], block[i + distance]);
      }
      if (q == p) break;
      distance = q - p;
      q /= 2;
      r = p;
    }
  }
}

// Of the sorted block. Adding zero turns -0 into 0: which of the two stands in the middle would hang on the order.
void write_middle(const std::vector<Row>& block, float* to, std::int64_t count) {
  const auto& high = block[block.size() / 2];
  const auto& low = block[(block.size() - 1) / 2];
  for (std::int64_t i = 0; i < count; ++i)
    to[i] = static_cast<float>((static_cast<double>(low.lanes[i / 4][i % 4]) + high.lanes[i / 4][i % 4]) / 2) + 0.0f;
}

void write_medians(const std::vector<at::Tensor>& slices, std::vector<Row>& block, float* to, std::int64_t count) {
  for (std::int64_t first = 0; first < count; first += kLanes) {
    const auto lanes = std::min(kLanes, count - first);
    for (std::size_t client = 0; client < slices.size(); ++client) {
      const float* from = slices[client].const_data_ptr<float>() + first;
      if (lanes < kLanes) block[client] = Row{};
      std::memcpy(&block[client], from, static_cast<std::size_t>(lanes) * sizeof(float));
    }
    sort_lanes(block);
    write_middle(block, to + first, lanes);
  }
}

void require_one_shape(const Updates& updates, std::size_t member) {
  const auto& spec = updates.tensor(member);
  for (std::size_t client = 0; client < updates.clients(); ++client) {
    if (updates.tensor(member, updates.who(client).view).shape != spec.shape)
      throw std::invalid_argument("median compares tensors of one shape; '" + spec.name + "' differs between clients");
  }
}

}  // namespace

std::int64_t Median::width(std::size_t clients) const {
  const auto row = static_cast<std::int64_t>(sizeof(float)) * (static_cast<std::int64_t>(clients) + 1);
  const auto block = static_cast<std::int64_t>(sizeof(float)) * kLanes * static_cast<std::int64_t>(clients);
  const auto room = static_cast<std::int64_t>(params_.workspace.value) - block;
  return std::max(kLanes, room / row / kLanes * kLanes);
}

// A slice of each client, one of the result, and the block that is being sorted.
std::uint64_t Median::workspace(const Layout& layout, const Group& group, std::size_t clients) const {
  std::int64_t largest = 0;
  for (auto member : group.members) largest = std::max(largest, layout.tensors.at(member).elements());
  return sizeof(float) * (static_cast<std::uint64_t>(std::min(largest, width(clients))) * (clients + 1) +
                          static_cast<std::uint64_t>(kLanes) * clients);
}

void Median::reduce(const Updates& updates, Results& results) {
  const auto clients = updates.clients();
  std::vector<at::Tensor> slices(clients);
  std::vector<Row> block(clients);
  for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
    require_one_shape(updates, member);
    const auto elements = updates.tensor(member).elements(), step = width(clients);
    if (elements == 0)
      results.put(member, at::empty(updates.tensor(member).shape, at::TensorOptions().dtype(at::kFloat)));
    for (std::int64_t first = 0; first < elements; first += step) {
      if (host_.cancelled()) throw std::runtime_error("the median was cancelled");
      const auto count = std::min(step, elements - first);
      auto result = at::empty({count}, at::TensorOptions().dtype(at::kFloat));
      float* to = result.mutable_data_ptr<float>();
      for (std::size_t client = 0; client < clients; ++client)
        slices[client] = updates.slice(client, member, first, count);
      if (clients == 0)
        std::fill(to, to + count, 0.0f);
      else
        write_medians(slices, block, to, count);
      for (auto& slice : slices) slice.reset();  // before the next ones come
      results.put_slice(member, first, result);
    }
  }
}

}  // namespace hansa::median

HANSA_PLUGIN(org_hansa_median, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<median::Median, median::Params>("median",
                                           "The median of every coordinate, unweighted: robust to a minority.")
      .doc(
          "arXiv 1803.01498. With an even number of clients, the mean of the two in the middle. Weights and example "
          "counts are not looked at: each client counts once, because a claim must not buy influence. Holds a slice of "
          "every client at a time, so memory does not grow with the model.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_STATELESS)
      .param(&median::Params::workspace, "workspace",
             "Memory for slices; more only where 32 elements of every client do not fit.", at_least(1 << 16));
}
