#include "factors/weighted_sum.hpp"

#include <algorithm>
#include <cstring>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::factors {
namespace {

void write_weighted(float* sum, const float* delta, std::int64_t count, float weight) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = weight * delta[i];
}
void add_weighted(float* sum, const float* delta, std::int64_t count, float weight) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] += weight * delta[i];
}

}  // namespace

at::Tensor weighted_sum(const Updates& updates, std::size_t member) {
  const auto& spec = updates.tensor(member);
  auto sum = at::empty(spec.shape, at::TensorOptions().dtype(at::kFloat));
  float* to = sum.mutable_data_ptr<float>();
  const auto count = sum.numel();
  if (updates.clients() == 0 && count > 0) std::memset(to, 0, sum.nbytes());
  for (std::size_t client = 0; client < updates.clients(); ++client) {
    const auto delta = updates.delta(client, member);
    if (delta.sizes() != sum.sizes())
      throw Error(fmt::format(
          "a weighted sum takes tensors of one shape; '{}' differs between clients. Use a rule for unlike ranks",
          spec.name));
    const auto weight = static_cast<float>(updates.who(client).weight);
    (client == 0 ? write_weighted : add_weighted)(to, delta.const_data_ptr<float>(), count, weight);
  }
  return sum;
}

std::uint64_t WeightedSum::workspace(const Layout& layout, const Group& group, std::size_t clients) const {
  std::uint64_t largest = 0;
  for (auto member : group.members)
    largest = std::max(largest, static_cast<std::uint64_t>(layout.tensors.at(member).elements()) * sizeof(float));
  return clients == 0 ? largest : 2 * largest;  // the sum, and one client's delta
}

void WeightedSum::reduce(const Updates& updates, Results& results) {
  for (std::size_t member = 0; member < updates.group().members.size(); ++member)
    results.put(member, weighted_sum(updates, member));
}

}  // namespace hansa::factors
