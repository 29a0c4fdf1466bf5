#include "quantised/expand.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hansa::quantised {

namespace {

template <class To>
void one_by_one(const std::uint8_t* codes, std::int64_t count, const To* levels, To* to) {
  for (std::int64_t i = 0; i < count; i += 2) {
    to[i] = levels[codes[i / 2] >> 4];
    to[i + 1] = levels[codes[i / 2] & 15];
  }
}

#if defined(__x86_64__)
// Sixteen levels are a table of bytes that fits one register: low and high bytes are looked up apart and interleaved.
__attribute__((target("ssse3"))) void shuffled(const std::uint8_t* codes, std::int64_t count,
                                               const std::uint16_t* levels, std::uint16_t* to) {
  alignas(16) std::uint8_t bytes[32];
  for (int k = 0; k < 16; ++k) {
    bytes[k] = static_cast<std::uint8_t>(levels[k] & 0xff);
    bytes[16 + k] = static_cast<std::uint8_t>(levels[k] >> 8);
  }
  const auto* tables = reinterpret_cast<const __m128i*>(bytes);
  const __m128i low = _mm_load_si128(tables), high = _mm_load_si128(tables + 1), nibble = _mm_set1_epi8(15);
  std::int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const auto pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i / 2));
    const auto first = _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble), second = _mm_and_si128(pairs, nibble);
    auto* out = reinterpret_cast<__m128i*>(to + i);
    for (int half = 0; half < 2; ++half) {
      const auto index = half == 0 ? _mm_unpacklo_epi8(first, second) : _mm_unpackhi_epi8(first, second);
      const auto a = _mm_shuffle_epi8(low, index), b = _mm_shuffle_epi8(high, index);
      _mm_storeu_si128(out + 2 * half, _mm_unpacklo_epi8(a, b));
      _mm_storeu_si128(out + 2 * half + 1, _mm_unpackhi_epi8(a, b));
    }
  }
  one_by_one(codes + i / 2, count - i, levels, to + i);
}
#endif

}  // namespace

void expand(const std::uint8_t* codes, std::int64_t count, const float* levels, float* to) {
  one_by_one(codes, count, levels, to);
}

void expand(const std::uint8_t* codes, std::int64_t count, const std::uint16_t* levels, std::uint16_t* to) {
#if defined(__x86_64__)
  static const bool shuffles = __builtin_cpu_supports("ssse3");
  if (shuffles) return shuffled(codes, count, levels, to);
#endif
  one_by_one(codes, count, levels, to);
}

}  // namespace hansa::quantised
