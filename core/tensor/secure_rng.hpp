// Randomness that privacy depends on: Gaussian noise and cohort draws from a ChaCha20 keystream (libsodium) whose key comes
// from the operating system, is never shown or stored, and is wiped at the end. There is no way to seed it: noise from the
// run's seed would be no noise to whoever knows the seed. One instance per thread.
//
// Floating point: normals come from Box-Muller in double with 53-bit uniforms (tails end near 8.5 standard deviations, which
// is a probability of 1e-17), are scaled in double and rounded to fp32. Noise on a floating-point grid is not the ideal
// Gaussian that accounting assumes: the low bits of a sum can say something about it (Mironov, CCS 2012). Adding the noise
// once, to the sum of many, and releasing only its mean through an optimiser makes that hard to use; it is no proof. A run
// that needs one uses a discrete mechanism on integers.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include <hansa/privacy.hpp>
#include <hansa/selection.hpp>

namespace hansa {

class SecureKeystream {
 public:
  SecureKeystream();  // throws Error when the operating system gives no randomness
  ~SecureKeystream();
  SecureKeystream(const SecureKeystream&) = delete;
  SecureKeystream& operator=(const SecureKeystream&) = delete;
  std::uint64_t next();
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }                 // [0, 1)
  double positive_uniform() { return static_cast<double>((next() >> 11) + 1) * 0x1.0p-53; }  // (0, 1]

 private:
  void refill();
  std::array<unsigned char, 32> key_{};
  std::vector<std::uint64_t> block_;
  std::size_t used_ = 0;
  std::uint64_t nonce_ = 0;
};

class SecureNoise final : public SecureRng {
 public:
  at::Tensor gaussian(at::IntArrayRef shape, double sigma) override;

 private:
  SecureKeystream stream_;
};

class SecureDraw final : public DrawRng {  // cohorts under amplified DP: the draw itself is secret
 public:
  double uniform() override { return stream_.uniform(); }

 private:
  SecureKeystream stream_;
};

}  // namespace hansa
