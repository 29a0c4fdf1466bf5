// Aggregator "rolora": low-rank pairs, one factor a round (arXiv 2502.01755): odd rounds train and ship B while A rests, even
// rounds A. With one factor common to all nodes the mean of the other gives the mean of the products. The sum is the SDK's.
#pragma once
#include <factors/weighted_sum.hpp>

namespace hansa::rolora {

class RoLora final : public factors::WeightedSum {
 public:
  Exchange exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const override;
};

}  // namespace hansa::rolora
