// What a log of residual factors adds to one frozen weight, in fp32: the factors side by side while they are thinner than the
// weight, and from there on their product, so that the cost of a forward pass stays bounded however long the log. A value;
// training thread.
#pragma once
#include <hansa/model.hpp>

namespace hansa::adapters {

class Side {
 public:
  // += B A; B [out, n], A [n, in], copied. Shapes fit each other and earlier ones.
  void add(const at::Tensor& B, const at::Tensor& A);
  bool empty() const { return !A_.defined(); }
  LowRank pair() const { return {.A = A_, .B = B_}; }  // fixed: scale 1, no dropout, no gradient

 private:
  at::Tensor A_, B_;
  bool whole_ = false;  // one of the factors is the identity, the other the product
};

}  // namespace hansa::adapters
