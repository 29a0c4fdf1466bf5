// Aggregator "fedsa_lora": of each low-rank pair A is shared, and B stays on its node (arXiv 2410.01463). The sum of what
// travels is the SDK's.
#pragma once
#include <factors/weighted_sum.hpp>

namespace hansa::fedsa_lora {

class FedSaLora final : public factors::WeightedSum {
 public:
  Exchange exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const override;
};

}  // namespace hansa::fedsa_lora
