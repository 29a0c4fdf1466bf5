// Aggregator "fedavg": the weighted sum of the clients' deltas, tensor by tensor, in node order; the host divides. Holds one
// sum and one client's tensor at a time. Own loops rather than LibTorch's: each element sees the same operations in the same
// order whatever the number of threads and the alignment.
#pragma once
#include <hansa/aggregator.hpp>

namespace hansa::fedavg {

class FedAvg final : public Stateless<Aggregator> {
 public:
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override;
  void reduce(const Updates&, Results&) override;
};

}  // namespace hansa::fedavg
