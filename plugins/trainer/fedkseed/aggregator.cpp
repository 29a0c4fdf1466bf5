#include "aggregator.hpp"

#include <algorithm>
#include <cmath>

#include <ATen/core/Tensor.h>
#include <c10/util/Half.h>
#include <fmt/format.h>
#include <seeds/wire.hpp>

#include "base/error.hpp"

namespace hansa::fedkseed {

namespace {

double largest(const at::Tensor& halves) {
  double most = 0;
  for (std::int64_t i = 0; i < halves.numel(); ++i)
    most = std::max(most, std::abs(static_cast<double>(static_cast<float>(halves.const_data_ptr<c10::Half>()[i]))));
  return most;
}

}  // namespace

Pool::Pool(PoolParams params) : params_(params), accumulators_(seeds::zero_accumulators(params.seeds)) {}

Exchange Pool::exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const {
  return {.roles = std::vector<Role>(trainable.tensors.size(), Role::Derived),
          .down = {seeds::down_channel(params_.seeds)}};
}

void Pool::begin(const RoundPlan&) {
  sum_.assign(static_cast<std::size_t>(params_.seeds), 0);
  weight_ = 0;
}

void Pool::collect(const Contribution& who, std::string_view channel, std::span<const at::Tensor> tensors) {
  if (channel != seeds::kUpChannel || tensors.size() != 2)
    throw Error(fmt::format("fedkseed takes seeds and scalars from the trainer `fedkseed`, not channel '{}'", channel));
  for (const auto& [seed, scalar] : seeds::decode(tensors[0], tensors[1], params_.seeds))
    sum_.at(seed) += who.weight * static_cast<double>(scalar);
  weight_ += who.weight;
}

void Pool::reduce(const Updates& updates, Results&) {
  if (!updates.group().members.empty())
    throw Error("fedkseed moves no tensors, and this round brings '" + updates.tensor(0).name + "'");
}

Metrics Pool::finish(Results& results) {
  if (weight_ <= 0) return {};
  auto mean = sum_;
  for (auto& element : mean) element /= weight_;
  const auto entry = seeds::to_half(mean);
  accumulators_ = seeds::sum(accumulators_, entry);
  results.append(seeds::kDownChannel, seeds::kDownChannel, entry);
  const auto used = std::count_if(mean.begin(), mean.end(), [](double element) { return element != 0; });
  return {{"seeds_used", static_cast<double>(used)}, {"largest_accumulator", largest(accumulators_)}};
}

std::optional<NamedTensors> Pool::compact(std::string_view channel, std::span<const Download> entries) const {
  if (channel != seeds::kDownChannel || entries.empty()) return std::nullopt;
  auto total = seeds::zero_accumulators(params_.seeds);
  for (const auto& entry : entries) {
    if (entry.anew) total = seeds::zero_accumulators(params_.seeds);
    total = seeds::sum(total, entry.tensors.at(0).second);
  }
  return NamedTensors{{std::string(seeds::kDownChannel), total}};
}

void Pool::save(StateWriter& to) const { to.put("accumulators", accumulators_); }

void Pool::load(const StateReader& from, std::uint32_t version) {
  if (version != 1) throw Error(fmt::format("fedkseed reads state of version 1; this is of version {}", version));
  const auto held = from.tensor("accumulators");
  seeds::require_entry(held, params_.seeds);
  accumulators_ = held.clone();
}

}  // namespace hansa::fedkseed
