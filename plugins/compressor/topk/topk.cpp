#include "topk.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <hansa/as_is.hpp>
#include <hansa/plugin.hpp>

#include "positions.hpp"

namespace hansa::topk {
namespace {

bool sparsifies(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }
bool sparsifies(at::ScalarType type) { return type == at::kFloat || type == at::kHalf || type == at::kBFloat16; }

at::ScalarType float_type(DType type) {
  if (!sparsifies(type))
    throw std::invalid_argument("topk takes f32, f16, bf16 and whole numbers; this one is " +
                                std::string(name_of(type)));
  return type == DType::f32 ? at::kFloat : type == DType::f16 ? at::kHalf : at::kBFloat16;
}

// Larger magnitudes have larger keys; infinity and NaN come out on top, in an order of their own.
std::uint32_t key_of(float value) { return std::bit_cast<std::uint32_t>(value) & 0x7fffffffu; }

struct Threshold {
  std::uint32_t key = 0;   // of the k-th largest magnitude
  std::int64_t equal = 0;  // how many of those with exactly this key are kept: the first ones
};

// By counting: the upper half of the keys first, then the lower half within the bin where the k-th falls. O(n), and no copy.
Threshold threshold_of(const float* values, std::int64_t n, std::int64_t k) {
  constexpr std::size_t kBins = 1 << 16;
  const auto bin_of_rank = [](const std::vector<std::int64_t>& counts, std::int64_t& rank) {
    auto bin = static_cast<std::uint32_t>(kBins);
    while (counts[--bin] < rank) rank -= counts[bin];
    return bin;
  };
  std::vector<std::int64_t> counts(kBins);
  for (std::int64_t i = 0; i < n; ++i) ++counts[key_of(values[i]) >> 16];
  std::int64_t rank = k;
  const auto upper = bin_of_rank(counts, rank);
  std::fill(counts.begin(), counts.end(), 0);
  for (std::int64_t i = 0; i < n; ++i)
    if (const auto key = key_of(values[i]); key >> 16 == upper) ++counts[key & 0xffffu];
  const auto lower = bin_of_rank(counts, rank);
  return {upper << 16 | lower, rank};
}

std::vector<std::int64_t> largest(const float* values, std::int64_t n, std::int64_t k) {
  std::vector<std::int64_t> kept;
  if (k == 0) return kept;
  kept.reserve(static_cast<std::size_t>(k));
  auto threshold = threshold_of(values, n, k);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto key = key_of(values[i]);
    if (key > threshold.key || (key == threshold.key && threshold.equal-- > 0)) kept.push_back(i);
  }
  return kept;
}

// Bit for bit, whatever the elements mean.
void gather(const at::Tensor& from, const std::vector<std::int64_t>& positions, at::Tensor& to) {
  const auto size = from.element_size();
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* target = static_cast<char*>(to.mutable_data_ptr());
  for (std::size_t i = 0; i < positions.size(); ++i)
    std::memcpy(target + i * size, source + static_cast<std::size_t>(positions[i]) * size, size);
}
void scatter(const at::Tensor& from, const std::vector<std::int64_t>& positions, at::Tensor& to) {
  const auto size = from.element_size();
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* target = static_cast<char*>(to.mutable_data_ptr());
  for (std::size_t i = 0; i < positions.size(); ++i)
    std::memcpy(target + static_cast<std::size_t>(positions[i]) * size, source + i * size, size);
}

}  // namespace

std::int64_t TopK::kept(std::int64_t elements) const {
  if (elements == 0) return 0;
  return std::clamp<std::int64_t>(std::llround(params_.fraction * static_cast<double>(elements)), 1, elements);
}

SizePlan TopK::plan(const TensorSpec& in) const {
  const auto n = in.elements();
  if (as_is::whole(in.dtype)) return as_is::plan(in);
  float_type(in.dtype);
  const auto k = kept(n);
  const auto where = code_for(n, k).bytes;
  const auto bytes = static_cast<std::uint64_t>(where) + static_cast<std::uint64_t>(k) * size_of(in.dtype);
  return {{{"where", DType::u8, {where}}, {"values", in.dtype, {k}}}, bytes, bytes};
}

Encoded TopK::encode(const at::Tensor& in, Seeds) const {
  if (as_is::whole(in.scalar_type())) return as_is::encode(in);
  if (!sparsifies(in.scalar_type())) throw std::invalid_argument("topk takes f32, f16, bf16 and whole numbers only");
  const auto whole = in.contiguous();
  const auto n = whole.numel();
  const auto magnitudes = whole.to(at::kFloat);
  const auto positions = largest(magnitudes.const_data_ptr<float>(), n, kept(n));
  const auto bytes = write_positions(positions, n);
  auto where = at::empty({static_cast<std::int64_t>(bytes.size())}, at::TensorOptions().dtype(at::kByte));
  std::copy(bytes.begin(), bytes.end(), where.mutable_data_ptr<std::uint8_t>());
  auto values = at::empty({static_cast<std::int64_t>(positions.size())}, whole.options());
  gather(whole, positions, values);
  return {{where, values}, ""};
}

at::Tensor TopK::decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const {
  if (as_is::whole(out.dtype)) return as_is::decode(encoded, out);
  if (!encoded.header.empty()) throw std::invalid_argument("topk: no header expected");
  const auto type = float_type(out.dtype);
  const auto n = out.elements(), k = kept(n);
  if (encoded.parts.size() != 2 || encoded.parts[0].scalar_type() != at::kByte ||
      encoded.parts[1].scalar_type() != type)
    throw std::invalid_argument("topk: positions and values of the tensor's type expected");
  const auto where = encoded.parts[0].contiguous(), values = encoded.parts[1].contiguous();
  if (values.numel() != k)
    throw std::invalid_argument("topk: the values do not fit the tensor; do both sides keep the same fraction?");
  const auto positions =
      read_positions({where.const_data_ptr<std::uint8_t>(), static_cast<std::size_t>(where.numel())}, n, k);
  auto made = at::zeros(out.shape, at::TensorOptions().dtype(type));
  scatter(values, positions, made);
  return made;
}

}  // namespace hansa::topk

HANSA_PLUGIN(org_hansa_topk, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<topk::TopK, topk::Params>("topk", "The largest magnitudes of each tensor; everything else is zero.")
      .doc(
          "arXiv 1809.07599 (with memory), 1704.05021. Kept elements come back bit for bit; of equal magnitudes those "
          "that "
          "stand first are kept. What is left out is lost unless [error_feedback] adds it to the next update. "
          "Positions "
          "take about log2(1 / fraction) + 1.5 bits each; the next stage may quantise the values. Whole numbers "
          "pass as they are.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_NORM_SAFE | HANSA_TRAIT_STATELESS | HANSA_TRAIT_REENTRANT)
      .param(&topk::Params::fraction, "fraction", "Share of each tensor's elements that is kept, at least one element.",
             more_than(0), at_most(1), "fraction");
}
