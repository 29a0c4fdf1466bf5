// Aggregator "fedavg": the weighted sum of the clients' deltas, tensor by tensor, in node order; the host divides. All of it is
// the SDK's weighted sum.
#pragma once
#include <factors/weighted_sum.hpp>

namespace hansa::fedavg {

class FedAvg final : public factors::WeightedSum {};

}  // namespace hansa::fedavg
