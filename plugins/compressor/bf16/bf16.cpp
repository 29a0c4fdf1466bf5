#include "bf16.hpp"

#include <bit>
#include <stdexcept>

#include <ATen/ops/empty.h>
#include <hansa/as_is.hpp>
#include <hansa/plugin.hpp>

namespace hansa::bf16 {
namespace {

constexpr std::uint32_t kInfinity = 0x7f800000u, kLargest = 0x7f7f0000u;  // of magnitudes: infinity, the largest bf16

// `add` is what decides between the two neighbours: below 0x10000, added before the lower half is cut off.
std::uint16_t cut(std::uint32_t bits, std::uint32_t add) {
  const std::uint32_t sign = bits & 0x80000000u, magnitude = bits & 0x7fffffffu;
  const std::uint32_t rounded = magnitude >= kInfinity
                                    ? magnitude | (magnitude > kInfinity ? 0x400000u : 0u)  // NaN stays NaN
                                : magnitude + add >= kInfinity ? kLargest                   // finite stays finite
                                                               : magnitude + add;
  return static_cast<std::uint16_t>((sign | rounded) >> 16);
}

std::uint32_t random_half(std::uint64_t seed, std::uint64_t i) {  // 16 bits of SplitMix64 of a counter
  std::uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<std::uint32_t>((z ^ (z >> 31)) >> 48);
}

}  // namespace

std::uint64_t traits(const Params& params) {
  const std::uint64_t always = HANSA_TRAIT_FIXED_SUPPORT | HANSA_TRAIT_STATELESS | HANSA_TRAIT_REENTRANT;
  if (params.rounding == Rounding::Stochastic) return always | HANSA_TRAIT_UNBIASED;
  if (params.rounding == Rounding::TowardZero) return always | HANSA_TRAIT_NORM_SAFE;
  return always;  // to nearest: half of all magnitudes grow, and errors depend on the values
}

SizePlan Bf16::plan(const TensorSpec& in) const {
  if (as_is::whole(in.dtype)) return as_is::plan(in);
  if (in.dtype != DType::f32)
    throw std::invalid_argument("bf16 takes f32 tensors; this one is " + std::string(name_of(in.dtype)));
  const auto bytes = static_cast<std::uint64_t>(in.elements()) * 2;
  return {{{"bf16", DType::bf16, in.shape}}, bytes, bytes};
}

Encoded Bf16::encode(const at::Tensor& in, Seeds seeds) const {
  if (as_is::whole(in.scalar_type())) return as_is::encode(in);
  if (in.scalar_type() != at::kFloat) throw std::invalid_argument("bf16 takes f32 tensors and whole numbers only");
  const auto values = in.contiguous();
  const float* from = values.const_data_ptr<float>();
  auto part = at::empty(in.sizes(), at::TensorOptions().dtype(at::kBFloat16));
  auto* to = static_cast<std::uint16_t*>(part.mutable_data_ptr());
  const auto each = [&](auto add) {
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(from[i]);
      to[i] = cut(bits, add(bits, static_cast<std::uint64_t>(i)));
    }
  };
  switch (params_.rounding) {
    case Rounding::Nearest:
      each([](std::uint32_t bits, std::uint64_t) { return 0x7fffu + ((bits >> 16) & 1u); });
      break;
    case Rounding::Stochastic: each([&](std::uint32_t, std::uint64_t i) { return random_half(seeds.own, i); }); break;
    case Rounding::TowardZero: each([](std::uint32_t, std::uint64_t) { return 0u; }); break;
  }
  return {{part}, ""};
}

at::Tensor Bf16::decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const {
  if (as_is::whole(out.dtype)) return as_is::decode(encoded, out);
  if (out.dtype != DType::f32) throw std::invalid_argument("bf16 gives f32 tensors only");
  if (encoded.parts.size() != 1 || !encoded.header.empty() || encoded.parts[0].scalar_type() != at::kBFloat16 ||
      encoded.parts[0].numel() != out.elements())
    throw std::invalid_argument("bf16: one bf16 part as large as the tensor expected, and no header");
  const auto part = encoded.parts[0].contiguous();
  const auto* from = static_cast<const std::uint16_t*>(part.const_data_ptr());
  auto made = at::empty(out.shape, at::TensorOptions().dtype(at::kFloat));
  float* to = made.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < part.numel(); ++i)
    to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i]) << 16);
  return made;
}

}  // namespace hansa::bf16

HANSA_PLUGIN(org_hansa_bf16, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<bf16::Bf16, bf16::Params>("bf16",
                                     "The upper half of each fp32: half the bytes, a relative error of at most 1/128.")
      .doc(
          "Relative error: at most 1/256 with nearest rounding, 1/128 otherwise. Stochastic rounding is unbiased, "
          "rounding "
          "toward zero never lengthens an update. Finite values stay finite.")
      .maturity(Maturity::Beta)
      .traits([](const bf16::Params& p) { return bf16::traits(p); })
      .param(&bf16::Params::rounding, "rounding", "How values between two bf16 numbers are rounded.",
             choices({"nearest", "stochastic", "toward_zero"}));
}
