#include "int8.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include <ATen/ops/empty.h>
#include <hansa/as_is.hpp>
#include <hansa/plugin.hpp>

namespace hansa::int8 {
namespace {

constexpr float kMostCode = 127;
constexpr float kMostScale = std::numeric_limits<float>::max() / 128;  // so that no code can decode to infinity

bool is_float(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

at::ScalarType float_type(DType type) {
  if (!is_float(type))
    throw std::invalid_argument("int8 takes f32, f16 and bf16 tensors; this one is " + std::string(name_of(type)));
  return type == DType::f32 ? at::kFloat : type == DType::f16 ? at::kHalf : at::kBFloat16;
}

float largest_magnitude(const float* from, std::int64_t count) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(from[i]));
  return largest;
}

bool all_finite(const float* from, std::int64_t count) {
  float sum = 0;  // 0 · x is 0 for every finite x, else NaN
  for (std::int64_t i = 0; i < count; ++i) sum += 0 * from[i];
  return sum == 0;
}

// The smallest scale with |x| / scale <= 127 for the whole block, so that nothing is cut off and rounding stays unbiased.
float scale_for(float largest) {
  float scale = largest / kMostCode;
  if (static_cast<double>(scale) * kMostCode < largest)
    scale = std::nextafter(scale, std::numeric_limits<float>::max());
  return std::min(scale, kMostScale);
}

// SplitMix64 of a counter: element i draws the same number whatever the order or the threads.
float uniform_at(std::uint64_t seed, std::uint64_t i) {
  std::uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1.0p-24f;
}

std::int8_t to_code(float steps, float shift) {  // floor(steps + shift), by truncation of a positive number
  const int code = static_cast<int>(steps + shift + 128.0f) - 128;
  return static_cast<std::int8_t>(std::clamp(code, -127, 127));
}

}  // namespace

std::uint64_t traits(const Params& params) {
  // Not NormSafe: rounding away from zero makes elements larger. Every element is always sent: FixedSupport.
  const std::uint64_t always = HANSA_TRAIT_FIXED_SUPPORT | HANSA_TRAIT_STATELESS | HANSA_TRAIT_REENTRANT;
  return params.rounding == Rounding::Stochastic ? always | HANSA_TRAIT_UNBIASED : always;
}

SizePlan Int8::plan(const TensorSpec& in) const {
  if (as_is::whole(in.dtype)) return as_is::plan(in);
  float_type(in.dtype);
  const auto blocks = (in.elements() + params_.block - 1) / params_.block;
  const auto bytes = static_cast<std::uint64_t>(in.elements() + 4 * blocks);
  return {{{"codes", DType::i8, in.shape}, {"scales", DType::f32, {blocks}}}, bytes, bytes};
}

Encoded Int8::encode(const at::Tensor& in, Seeds seeds) const {
  if (as_is::whole(in.scalar_type())) return as_is::encode(in);
  if (!in.is_floating_point()) throw std::invalid_argument("int8 takes floating-point tensors and whole numbers only");
  const auto values = in.to(at::kFloat).contiguous();
  const float* from = values.const_data_ptr<float>();
  const auto count = values.numel(), blocks = (count + params_.block - 1) / params_.block;
  if (!all_finite(from, count)) throw std::invalid_argument("int8: the tensor holds NaN or infinity");
  auto codes = at::empty(in.sizes(), at::TensorOptions().dtype(at::kChar));
  auto scales = at::empty({blocks}, at::TensorOptions().dtype(at::kFloat));
  auto* to = codes.mutable_data_ptr<std::int8_t>();
  for (std::int64_t block = 0; block < blocks; ++block) {
    const auto begin = block * params_.block, end = std::min(count, begin + params_.block);
    const float scale = scale_for(largest_magnitude(from + begin, end - begin));
    scales.mutable_data_ptr<float>()[block] = scale;
    const float divisor = scale > 0 ? scale : 1;
    if (params_.rounding == Rounding::Nearest)
      for (auto i = begin; i < end; ++i) to[i] = to_code(from[i] / divisor, 0.5f);
    else
      for (auto i = begin; i < end; ++i)
        to[i] = to_code(from[i] / divisor, uniform_at(seeds.own, static_cast<std::uint64_t>(i)));
  }
  return {{codes, scales}, ""};
}

at::Tensor Int8::decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const {
  if (as_is::whole(out.dtype)) return as_is::decode(encoded, out);
  const auto type = float_type(out.dtype);
  const auto count = out.elements(), blocks = (count + params_.block - 1) / params_.block;
  if (encoded.parts.size() != 2 || !encoded.header.empty())
    throw std::invalid_argument("int8: codes and scales expected, and no header");
  const auto codes = encoded.parts[0].contiguous(), scales = encoded.parts[1].contiguous();
  if (codes.scalar_type() != at::kChar || codes.numel() != count)
    throw std::invalid_argument("int8: the codes do not fit the tensor");
  if (scales.scalar_type() != at::kFloat || scales.numel() != blocks)
    throw std::invalid_argument("int8: the scales do not fit the tensor; do both sides use the same block size?");
  auto made = at::empty(out.shape, at::TensorOptions().dtype(at::kFloat));
  float* to = made.mutable_data_ptr<float>();
  const auto* from = codes.const_data_ptr<std::int8_t>();
  for (std::int64_t block = 0; block < blocks; ++block) {
    const float scale = scales.const_data_ptr<float>()[block];
    if (!(scale >= 0 && scale <= kMostScale))
      throw std::invalid_argument("int8: a scale is negative, not finite or too large");
    const auto begin = block * params_.block, end = std::min(count, begin + params_.block);
    for (auto i = begin; i < end; ++i) to[i] = static_cast<float>(from[i]) * scale;
  }
  return type == at::kFloat ? made : made.to(type);
}

}  // namespace hansa::int8

HANSA_PLUGIN(org_hansa_int8, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<int8::Int8, int8::Params>("int8", "8-bit integers with one scale per block: a quarter of the bytes.")
      .doc(
          "Each block of `block` elements is stored as integers from -127 to 127 times its largest magnitude over 127. "
          "Error "
          "per element: at most half a step with nearest rounding, one step with stochastic rounding, which is "
          "unbiased "
          "(as in QSGD, arXiv 1610.02132).")
      .maturity(Maturity::Beta)
      .traits([](const int8::Params& p) { return int8::traits(p); })
      .param(&int8::Params::block, "block", "Elements that share one scale.", range(8, 1 << 20), "elements")
      .param(&int8::Params::rounding, "rounding", "How values between two codes are rounded.",
             choices({"nearest", "stochastic"}));
}
