#include <immintrin.h>

#include "kernel.hpp"

namespace hansa::seeds::kernel {
namespace {

#include "kernel.inc"

struct Avx512 {
  using U = __m512i;
  using F = __m512;
  static constexpr int kWidth = 16;
  static U all(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static F all(float x) { return _mm512_set1_ps(x); }
  static U ascending() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
  static U plus(U a, U b) { return _mm512_add_epi32(a, b); }
  static U minus(U a, U b) { return _mm512_sub_epi32(a, b); }
  static U both(U a, U b) { return _mm512_and_si512(a, b); }
  static U exclusive_or(U a, U b) { return _mm512_xor_si512(a, b); }
  static U exclusive_or(U a, U b, U c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
  template <int kBits>
  static U shift_right(U x) {
    return _mm512_srli_epi32(x, kBits);
  }
  template <int kBits>
  static U shift_left(U x) {
    return _mm512_slli_epi32(x, kBits);
  }
  template <int kBits>
  static U shift_arithmetic(U x) {
    return _mm512_srai_epi32(x, kBits);
  }
  static void multiply(U a, std::uint32_t b, U& high, U& low) {
    const U factor = all(b);
    const U even = _mm512_mul_epu32(a, factor), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), factor);
    high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
    low = _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_CCAA);
  }
  static F to_float(U x) { return _mm512_cvtepi32_ps(x); }
  static U bits(F x) { return _mm512_castps_si512(x); }
  static F value(U x) { return _mm512_castsi512_ps(x); }
  static F plus(F a, F b) { return _mm512_add_ps(a, b); }
  static F minus(F a, F b) { return _mm512_sub_ps(a, b); }
  static F times(F a, F b) { return _mm512_mul_ps(a, b); }
  static F root(F x) { return _mm512_sqrt_ps(x); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, F x) { _mm512_storeu_ps(to, x); }
};

}  // namespace

void add_avx512(const Job& job) { add_groups<Avx512>(job); }

}  // namespace hansa::seeds::kernel
