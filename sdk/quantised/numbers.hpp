// What both forms need of single numbers. Inside this library only.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "base/error.hpp"

namespace hansa::quantised {

// bf16, rounded to nearest even; the value is finite.
inline std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}
inline float rounded(float value, const float*) { return value; }
inline std::uint16_t rounded(float value, const std::uint16_t*) { return to_bf16(value); }

// The largest absolute value. Their sum says whether all are finite: it is not where one of them is not.
inline float largest(const float* values, std::int64_t count) {
  float most = 0, poison = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float size = std::fabs(values[i]);
    most = size > most ? size : most;
    poison += values[i] * 0.0F;
  }
  if (poison != 0) throw Error("a weight that is infinite or not a number cannot be quantised");
  return most;
}

}  // namespace hansa::quantised
