// From 4-bit codes to numbers: the inner loop of every product with an NF4 weight. Pure; any thread; nothing is checked.
#pragma once
#include <cstdint>

namespace hansa::quantised {

// to[i] = levels[code i], for `count` values of one block; the first of a pair is in the upper half of its byte. count is even.
void expand(const std::uint8_t* codes, std::int64_t count, const float* levels, float* to);
void expand(const std::uint8_t* codes, std::int64_t count, const std::uint16_t* levels, std::uint16_t* to);

}  // namespace hansa::quantised
