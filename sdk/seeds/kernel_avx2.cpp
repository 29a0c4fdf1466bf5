#include <immintrin.h>

#include "kernel.hpp"

namespace hansa::seeds::kernel {
namespace {

#include "kernel.inc"

struct Avx2 {
  using U = __m256i;
  using F = __m256;
  static constexpr int kWidth = 8;
  static U all(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static F all(float x) { return _mm256_set1_ps(x); }
  static U ascending() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  static U plus(U a, U b) { return _mm256_add_epi32(a, b); }
  static U minus(U a, U b) { return _mm256_sub_epi32(a, b); }
  static U both(U a, U b) { return _mm256_and_si256(a, b); }
  static U exclusive_or(U a, U b) { return _mm256_xor_si256(a, b); }
  static U exclusive_or(U a, U b, U c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  template <int kBits>
  static U shift_right(U x) {
    return _mm256_srli_epi32(x, kBits);
  }
  template <int kBits>
  static U shift_left(U x) {
    return _mm256_slli_epi32(x, kBits);
  }
  template <int kBits>
  static U shift_arithmetic(U x) {
    return _mm256_srai_epi32(x, kBits);
  }
  static void multiply(U a, std::uint32_t b, U& high, U& low) {
    const U factor = all(b);
    const U even = _mm256_mul_epu32(a, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), factor);
    high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
    low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  }
  static F to_float(U x) { return _mm256_cvtepi32_ps(x); }
  static U bits(F x) { return _mm256_castps_si256(x); }
  static F value(U x) { return _mm256_castsi256_ps(x); }
  static F plus(F a, F b) { return _mm256_add_ps(a, b); }
  static F minus(F a, F b) { return _mm256_sub_ps(a, b); }
  static F times(F a, F b) { return _mm256_mul_ps(a, b); }
  static F root(F x) { return _mm256_sqrt_ps(x); }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, F x) { _mm256_storeu_ps(to, x); }
};

}  // namespace

void add_avx2(const Job& job) { add_groups<Avx2>(job); }

}  // namespace hansa::seeds::kernel
