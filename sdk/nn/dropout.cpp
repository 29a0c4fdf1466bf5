#include "nn/dropout.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/bernoulli.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>

namespace hansa::nn {

at::Generator make_generator(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }

void Dropout::enable(std::uint64_t seed) { generator_ = make_generator(seed); }

at::Tensor Dropout::apply(const at::Tensor& x, double p) {
  if (!generator_ || p == 0) return x;
  // p = 1 drops everything; dividing by zero would make it NaN.
  at::Tensor mask = at::empty_like(x.detach()).bernoulli_(1 - p, generator_);
  if (p < 1) mask.div_(1 - p);
  return at::mul(x, mask);
}

}  // namespace hansa::nn
