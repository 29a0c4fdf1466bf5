// The weighted sum of the clients' changes, tensor by tensor, in node order. Holds one sum and one client's tensor at a time.
// Own loops rather than LibTorch's: each element sees the same operations in the same order whatever the number of threads
// and the alignment. Fold thread; throws Error naming the tensor where clients' shapes differ.
#pragma once
#include <hansa/aggregator.hpp>

namespace hansa::factors {

// Σ weight · delta of one member, in the shape of the view "".
at::Tensor weighted_sum(const Updates&, std::size_t member);

// A rule that is this sum on whatever travels; the host divides. Derived rules say in exchange() what travels.
class WeightedSum : public Stateless<Aggregator> {
 public:
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override;
  void reduce(const Updates&, Results&) override;
};

}  // namespace hansa::factors
