// Squared L2 norm in one fixed order: double accumulation in 16 lanes, lane i taking the elements i, i+16, …, then a fixed
// tree. So the result is the same for every thread count, alignment, vector width and machine (a product of two floats is
// exact in double, so fused multiply-add changes nothing either). LibTorch's norm promises none of this. Any thread.
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <span>

namespace at {
class Tensor;
}

namespace hansa {

struct SquaredNorm {
  double value = 0;
  // Squares of finite floats cannot overflow a double sum, so the sum tells whether all was finite: no second pass.
  bool all_finite() const { return std::isfinite(value); }
  double norm() const { return std::sqrt(value); }
  SquaredNorm& operator+=(const SquaredNorm& other) {
    value += other.value;
    return *this;
  }
};

// The same, of values that come in pieces: every piece but the last has a multiple of kLanes elements.
class RunningSquaredNorm {
 public:
  static constexpr std::size_t kLanes = 16;
  void add(std::span<const float> values);
  SquaredNorm value() const;

 private:
  std::array<double, kLanes> lanes_{};
};

SquaredNorm squared_norm(std::span<const float> values);
SquaredNorm squared_norm(const at::Tensor&);  // fp32, contiguous, CPU; else throws Error

}  // namespace hansa
