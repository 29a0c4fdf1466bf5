#include "tensor/secure_rng.hpp"

#include <cmath>
#include <cstring>
#include <numbers>

#include <sodium.h>

#include "base/error.hpp"
#include "tensor/bridge.hpp"

namespace hansa {

SecureKeystream::SecureKeystream() : block_(8192), used_(block_.size()) {
  static_assert(crypto_stream_chacha20_KEYBYTES == 32 && crypto_stream_chacha20_NONCEBYTES == 8);
  if (sodium_init() < 0) throw Error("the operating system gives no randomness (libsodium would not start)");
  randombytes_buf(key_.data(), key_.size());
}

SecureKeystream::~SecureKeystream() {
  sodium_memzero(key_.data(), key_.size());
  sodium_memzero(block_.data(), block_.size() * sizeof block_[0]);
}

std::uint64_t SecureKeystream::next() {
  if (used_ == block_.size()) refill();
  const auto drawn = block_[used_];
  block_[used_++] = 0;  // what was used must not be found in memory later
  return drawn;
}

void SecureKeystream::refill() {
  std::array<unsigned char, crypto_stream_chacha20_NONCEBYTES> nonce;
  std::memcpy(nonce.data(), &nonce_, sizeof nonce_);
  ++nonce_;  // a nonce is used once; 2^64 blocks outlast any process
  crypto_stream_chacha20(reinterpret_cast<unsigned char*>(block_.data()), block_.size() * sizeof block_[0],
                         nonce.data(), key_.data());
  used_ = 0;
}

at::Tensor SecureNoise::gaussian(at::IntArrayRef shape, double sigma) {
  if (!(sigma >= 0) || !std::isfinite(sigma))
    throw Error("Gaussian noise needs a finite standard deviation of at least 0");
  auto noise = aligned_empty(DType::f32, shape);
  float* to = noise.mutable_data_ptr<float>();
  const auto count = noise.numel();
  for (std::int64_t i = 0; i < count; i += 2) {
    const double radius = sigma * std::sqrt(-2 * std::log(stream_.positive_uniform()));
    const double angle = 2 * std::numbers::pi * stream_.uniform();
    to[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < count) to[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return noise;
}

}  // namespace hansa
