#include "nn/dropout.hpp"

#include <ATen/Context.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/bernoulli.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>

namespace hansa::nn {

at::Generator make_generator(std::uint64_t seed, at::Device device) {
  if (!device.is_cuda()) return at::detail::createCPUGenerator(seed);
  auto generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

void Dropout::enable(std::uint64_t seed, at::Device device) { generator_ = make_generator(seed, device); }

Dropout Dropout::copy() const {
  Dropout other;
  if (generator_) other.generator_ = generator_->clone();
  return other;
}

at::Tensor Dropout::apply(const at::Tensor& x, double p) {
  if (!generator_ || p == 0) return x;
  // p = 1 drops everything; dividing by zero would make it NaN.
  at::Tensor mask = at::empty_like(x.detach()).bernoulli_(1 - p, generator_);
  if (p < 1) mask.div_(1 - p);
  return at::mul(x, mask);
}

}  // namespace hansa::nn
