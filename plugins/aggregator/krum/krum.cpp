#include "krum.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

#include <ATen/ops/empty.h>
#include <hansa/plugin.hpp>

namespace hansa::krum {
namespace {

constexpr std::int64_t kBlock = 2048;  // elements of every client that stay in the cache while all pairs are looked at
constexpr std::int64_t kLanes = 8;

std::size_t pairs(std::size_t clients) { return clients * (clients - 1) / 2; }
std::size_t pair_of(std::size_t i, std::size_t j, std::size_t clients) {  // i < j
  return i * (2 * clients - i - 1) / 2 + (j - i - 1);
}

using Floats =
    float __attribute__((vector_size(4 * kLanes)));  // GCC and Clang make vector instructions of these as they
using Doubles = double __attribute__((vector_size(8 * kLanes)));  // stand, in the widths that the machine has

// Lanes of a fixed number: the sum does not depend on the width. The difference in double, so that the distance of two clients
// that are close together, far from zero, is not lost.
double squared_distance(const float* a, const float* b, std::int64_t count) {
  Doubles lanes{};
  const auto add = [&](const float* x, const float* y, std::int64_t some) {
    Floats one{}, other{};
    std::memcpy(&one, x, static_cast<std::size_t>(some) * sizeof(float));
    std::memcpy(&other, y, static_cast<std::size_t>(some) * sizeof(float));
    const auto difference = __builtin_convertvector(one, Doubles) - __builtin_convertvector(other, Doubles);
    lanes += difference * difference;
  };
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) add(a + i, b + i, kLanes);
  if (i < count) add(a + i, b + i, count - i);
  double sum = 0;
  for (std::int64_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

void require_one_shape(const Updates& updates, std::size_t member) {
  const auto& spec = updates.tensor(member);
  for (std::size_t client = 0; client < updates.clients(); ++client) {
    if (updates.tensor(member, updates.who(client).view).shape != spec.shape)
      throw std::invalid_argument("krum compares tensors of one shape; '" + spec.name + "' differs between clients");
  }
}

std::int64_t largest_member(const Layout& layout, const Group& group) {
  std::int64_t largest = 0;
  for (auto member : group.members) largest = std::max(largest, layout.tensors.at(member).elements());
  return largest;
}

}  // namespace

std::uint64_t traits(const Params& params) {
  const std::uint64_t always =
      HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_FLAT | HANSA_TRAIT_STATELESS;
  // One chosen client: the next version is its update. Several: their tensors are averaged one by one.
  return always | (params.m == 1 ? HANSA_TRAIT_RELEASES_INDIVIDUALS : HANSA_TRAIT_ELEMENTWISE_MEAN);
}

std::int64_t Krum::width(std::size_t clients) const {
  const auto column = static_cast<std::int64_t>(sizeof(float) * std::max<std::size_t>(clients, 2));
  return std::max<std::int64_t>(kLanes, static_cast<std::int64_t>(params_.workspace.value) / column / kLanes * kLanes);
}

// A slice of every client while distances are taken (of one and the result afterwards), the distances of all pairs, and what
// scoring needs for each client.
std::uint64_t Krum::workspace(const Layout& layout, const Group& group, std::size_t clients) const {
  const auto slice = static_cast<std::uint64_t>(std::min(largest_member(layout, group), width(clients)));
  return sizeof(float) * slice * std::max<std::size_t>(clients, 2) +
         sizeof(double) * ((clients ? pairs(clients) : 0) + 4 * clients);
}

void Krum::begin(const RoundPlan&) {
  clients_ = 0;
  distances_.clear();
  chosen_.clear();
}

void Krum::require_enough(std::size_t clients) const {
  const auto n = static_cast<std::int64_t>(clients);
  const auto counts = std::to_string(n) + (n == 1 ? " update" : " updates") + ", f = " + std::to_string(params_.f) +
                      ", m = " + std::to_string(params_.m);
  if (2 * params_.f + 2 >= n)
    throw std::invalid_argument("krum needs more than 2f + 2 updates to withstand f of them (" + counts +
                                "): lower f, or wait for more clients");
  if (params_.m > n - params_.f)
    throw std::invalid_argument("krum would average updates that it is told to distrust, because m > n - f (" + counts +
                                "): lower m");
}

void Krum::survey(const Updates& updates) {
  if (distances_.empty()) {
    clients_ = updates.clients();
    require_enough(clients_);
    distances_.assign(pairs(clients_), 0.0);
  }
  if (updates.clients() != clients_) throw std::invalid_argument("krum: the number of clients changed within a round");
  std::vector<at::Tensor> slices(clients_);
  for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
    require_one_shape(updates, member);
    const auto elements = updates.tensor(member).elements(), step = width(clients_);
    for (std::int64_t first = 0; first < elements; first += step) {
      if (host_.cancelled()) throw std::runtime_error("krum was cancelled");
      const auto count = std::min(step, elements - first);
      for (std::size_t client = 0; client < clients_; ++client)
        slices[client] = updates.slice(client, member, first, count);
      add_distances(slices, count);
      for (auto& slice : slices) slice.reset();  // before the next ones come
    }
  }
}

void Krum::add_distances(const std::vector<at::Tensor>& slices, std::int64_t count) {
  std::vector<const float*> from;
  for (const auto& slice : slices) from.push_back(slice.const_data_ptr<float>());
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const auto block = std::min(kBlock, count - first);
    for (std::size_t i = 0, pair = 0; i < clients_; ++i)
      for (std::size_t j = i + 1; j < clients_; ++j, ++pair)
        distances_[pair] += squared_distance(from[i] + first, from[j] + first, block);
  }
}

// The m smallest scores; a client's score is the sum of the squared distances to its n - f - 2 nearest. The lower NodeId wins
// among equals.
std::vector<std::size_t> Krum::choose(const Updates& updates) const {
  const auto neighbours = clients_ - static_cast<std::size_t>(params_.f) - 2;
  std::vector<double> scores(clients_), row;
  for (std::size_t i = 0; i < clients_; ++i) {
    row.clear();
    for (std::size_t j = 0; j < clients_; ++j)
      if (j != i) row.push_back(distances_[pair_of(std::min(i, j), std::max(i, j), clients_)]);
    std::sort(row.begin(), row.end());
    scores[i] = std::accumulate(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(neighbours), 0.0);
  }
  std::vector<std::size_t> order(clients_);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto by_node = [&](std::size_t a, std::size_t b) { return updates.who(a).node < updates.who(b).node; };
  std::stable_sort(order.begin(), order.end(), by_node);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
  order.resize(static_cast<std::size_t>(params_.m));
  std::stable_sort(order.begin(), order.end(), by_node);
  return order;
}

void Krum::reduce(const Updates& updates, Results& results) {
  if (distances_.empty() || updates.clients() != clients_)
    throw std::logic_error("krum: reduce without the survey of the same clients");
  if (chosen_.empty()) chosen_ = choose(updates);
  const auto share = static_cast<float>(chosen_.size());
  for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
    const auto elements = updates.tensor(member).elements(), step = width(clients_);
    if (elements == 0)
      results.put(member, at::empty(updates.tensor(member).shape, at::TensorOptions().dtype(at::kFloat)));
    for (std::int64_t first = 0; first < elements; first += step) {
      const auto count = std::min(step, elements - first);
      auto mean = at::empty({count}, at::TensorOptions().dtype(at::kFloat));
      float* to = mean.mutable_data_ptr<float>();
      for (std::size_t place = 0; place < chosen_.size(); ++place) {
        const auto slice = updates.slice(chosen_[place], member, first, count);
        const float* from = slice.const_data_ptr<float>();
        for (std::int64_t i = 0; i < count; ++i) to[i] = place ? to[i] + from[i] : from[i];
      }
      for (std::int64_t i = 0; i < count; ++i) to[i] /= share;
      results.put_slice(member, first, mean);
    }
  }
}

Metrics Krum::finish(Results&) {
  const Metrics counts{{"krum_updates", static_cast<double>(clients_)},
                       {"krum_chosen", static_cast<double>(chosen_.size())}};
  begin({});
  return counts;
}

}  // namespace hansa::krum

HANSA_PLUGIN(org_hansa_krum, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<krum::Krum, krum::Params>(
          "krum", "The m updates closest to their neighbours, averaged without weights: withstands f faulty clients.")
      .doc(
          "arXiv 1703.02757 (Krum; Multi-Krum for m > 1). The score of an update is the sum of the squared distances "
          "to "
          "its n - f - 2 nearest, over the whole update as one vector. Needs n > 2f + 2 updates in every round. With m "
          "= 1 "
          "the next version is one client's update, which every node sees.")
      .maturity(Maturity::Beta)
      .traits([](const krum::Params& p) { return krum::traits(p); })
      .param(&krum::Params::f, "f", "Faulty clients to withstand.", range(0, 1 << 20), "clients")
      .param(&krum::Params::m, "m", "Updates that are chosen and averaged; 1 is Krum proper.", range(1, 1 << 20),
             "clients")
      .param(&krum::Params::workspace, "workspace",
             "Memory for slices, beside 8 bytes for each pair of clients; more only where 8 elements of every client "
             "do not "
             "fit.",
             at_least(1 << 16));
}
