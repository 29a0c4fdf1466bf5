// Aggregator `fedkseed` (arXiv 2312.06353): the weighted mean of the nodes' scalars, seed by seed, as one more entry of a log
// of half-precision accumulators. No tensor of the model passes here. Called on the fold thread. Throws Error on malformed
// seeds and where half precision would overflow: the round is not applied.
#pragma once
#include <vector>

#include <hansa/aggregator.hpp>

namespace hansa::fedkseed {

struct PoolParams {
  std::int64_t seeds = 4096;
};

class Pool final : public Aggregator {
 public:
  explicit Pool(PoolParams params);
  Exchange exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const override;
  std::uint64_t workspace(const Layout&, const Group&, std::size_t) const override { return 0; }
  void begin(const RoundPlan&) override;
  void collect(const Contribution&, std::string_view channel, std::span<const at::Tensor>) override;
  void reduce(const Updates&, Results&) override;
  Metrics finish(Results&) override;
  std::optional<NamedTensors> compact(std::string_view channel, std::span<const Download> entries) const override;
  // The accumulators so far: only so that an overflow is found here, before it is announced.
  std::uint32_t state_version() const override { return 1; }
  void save(StateWriter&) const override;
  void load(const StateReader&, std::uint32_t version) override;

 private:
  PoolParams params_;
  at::Tensor accumulators_;
  std::vector<double> sum_;  // of weight * scalar, by seed
  double weight_ = 0;
};

}  // namespace hansa::fedkseed
