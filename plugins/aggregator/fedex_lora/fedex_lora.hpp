// Aggregator "fedex_lora": the exact mean of low-rank updates (arXiv 2410.09432). A and B become their weighted means; what the
// product of means lacks against the mean of products, s Σ p_i (B_i - mean B)(A_i - mean A), goes down as factors in the Log
// channel "residual", for the frozen weights. Fold thread. Throws Error where a group is no low-rank pair, or where clients
// differ in rank.
#pragma once
#include <hansa/aggregator.hpp>

namespace hansa::fedex_lora {

class FedExLora final : public Stateless<Aggregator> {
 public:
  Exchange exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const override;
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override;
  void reduce(const Updates&, Results&) override;
  std::optional<NamedTensors> compact(std::string_view channel, std::span<const Download> entries) const override;
};

}  // namespace hansa::fedex_lora
