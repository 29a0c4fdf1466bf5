// Learning rate as a function of the step. Pure.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace hansa::train {

enum class Shape : std::uint8_t { Constant, Cosine, Linear };

struct Schedule {
  Shape shape = Shape::Constant;
  std::uint64_t warmup = 0, total = 1;  // steps
  double peak = 0, final_fraction = 0;
  double at(std::uint64_t step) const {  // from 0
    if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
    if (shape == Shape::Constant) return peak;
    const double span = std::max<double>(1, static_cast<double>(total) - static_cast<double>(warmup));
    const double done = std::min(1.0, static_cast<double>(step - warmup) / span);
    const double left = shape == Shape::Cosine ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
    return peak * (final_fraction + (1 - final_fraction) * left);
  }
};

}  // namespace hansa::train
