#include <bit>

#include "kernel.hpp"

namespace hansa::seeds::kernel {
namespace {

#include "kernel.inc"

struct Scalar {  // what each operation means
  using U = std::uint32_t;
  using F = float;
  static constexpr int kWidth = 1;
  static U all(U x) { return x; }
  static F all(F x) { return x; }
  static U ascending() { return 0; }  // the lane's number
  static U plus(U a, U b) { return a + b; }
  static U minus(U a, U b) { return a - b; }
  static U both(U a, U b) { return a & b; }
  static U exclusive_or(U a, U b) { return a ^ b; }
  static U exclusive_or(U a, U b, U c) { return a ^ b ^ c; }
  template <int kBits>
  static U shift_right(U x) {
    return x >> kBits;
  }
  template <int kBits>
  static U shift_left(U x) {
    return x << kBits;
  }
  template <int kBits>
  static U shift_arithmetic(U x) {
    return static_cast<U>(static_cast<std::int32_t>(x) >> kBits);
  }
  static void multiply(U a, U b, U& high, U& low) {
    const std::uint64_t product = static_cast<std::uint64_t>(a) * b;
    high = static_cast<U>(product >> 32);
    low = static_cast<U>(product);
  }
  static F to_float(U x) { return static_cast<float>(static_cast<std::int32_t>(x)); }  // small whole numbers: exact
  static U bits(F x) { return std::bit_cast<U>(x); }
  static F value(U x) { return std::bit_cast<F>(x); }
  static F plus(F a, F b) { return a + b; }
  static F minus(F a, F b) { return a - b; }
  static F times(F a, F b) { return a * b; }
  static F root(F x) { return __builtin_sqrtf(x); }
  static F load(const float* from) { return *from; }
  static void store(float* to, F x) { *to = x; }
};

}  // namespace

void add_scalar(const Job& job) { add_groups<Scalar>(job); }

}  // namespace hansa::seeds::kernel
