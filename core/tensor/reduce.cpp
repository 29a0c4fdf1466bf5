#include "tensor/reduce.hpp"

#include <ATen/core/Tensor.h>

#include "base/error.hpp"

// The widest registers of the machine that runs; the result is the same for each. (Sanitisers are not up yet when the choice
// is made.)
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define HANSA_WIDE __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define HANSA_WIDE
#endif

namespace hansa {

HANSA_WIDE void RunningSquaredNorm::add(std::span<const float> values) {
  auto lanes = lanes_;
  const float* at = values.data();
  std::size_t left = values.size();
  for (; left >= kLanes; left -= kLanes, at += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] += static_cast<double>(at[lane]) * static_cast<double>(at[lane]);
  for (std::size_t lane = 0; lane < left; ++lane)
    lanes[lane] += static_cast<double>(at[lane]) * static_cast<double>(at[lane]);
  lanes_ = lanes;
}

SquaredNorm RunningSquaredNorm::value() const {
  auto lanes = lanes_;
  for (std::size_t half = kLanes / 2; half > 0; half /= 2)
    for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return {lanes[0]};
}

SquaredNorm squared_norm(std::span<const float> values) {
  RunningSquaredNorm norm;
  norm.add(values);
  return norm.value();
}

SquaredNorm squared_norm(const at::Tensor& tensor) {
  if (tensor.scalar_type() != at::kFloat || !tensor.is_contiguous() || !tensor.is_cpu())
    throw Error("squared_norm needs a contiguous fp32 tensor on the CPU");
  return squared_norm(std::span(tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())));
}

}  // namespace hansa
