// Seeded dropout. A model owns one; layers draw from it in the order of the forward pass, so that the masks are a pure
// function of the seed. Off until a seed is given. Training thread only.
#pragma once
#include <cstdint>
#include <optional>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace hansa::nn {

class Dropout {
 public:
  void enable(std::uint64_t seed, at::Device = at::kCPU);  // restarts the stream; of the tensors that it is applied to
  void disable() { generator_.reset(); }
  bool enabled() const { return generator_.has_value(); }
  Dropout copy() const;  // draws the same masks as this one from here on, apart from it
  // x where off or p is 0; else x with each element kept with probability 1 - p and scaled by 1 / (1 - p).
  at::Tensor apply(const at::Tensor& x, double p);

 private:
  std::optional<at::Generator> generator_;
};

// On the CPU the same bits for a seed on every machine of one LibTorch; on a GPU another stream, of that device's own.
at::Generator make_generator(std::uint64_t seed, at::Device = at::kCPU);

}  // namespace hansa::nn
