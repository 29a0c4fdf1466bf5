#include "nn/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <ATen/TensorOperators.h>

namespace hansa::nn {

namespace {

constexpr double kTurn = 2 * std::numbers::pi;

// Wavelengths beyond the original context are stretched by `factor`, short ones stay, and between there is a ramp.
float stretched(float frequency, const RopeSettings::Llama3& s) {
  const double wavelength = kTurn / frequency;
  const double longest_kept = s.original_max_positions / s.high_frequency_factor;
  const double shortest_stretched = s.original_max_positions / s.low_frequency_factor;
  if (wavelength < longest_kept) return frequency;
  if (wavelength > shortest_stretched) return static_cast<float>(frequency / s.factor);
  const double smooth = (s.original_max_positions / wavelength - s.low_frequency_factor) /
                        (s.high_frequency_factor - s.low_frequency_factor);
  return static_cast<float>((1 - smooth) * frequency / s.factor + smooth * frequency);
}

// In fp32, as the checkpoints' own code does: at position 100,000 the last bits of a frequency are visible.
at::Tensor plain_frequencies(std::int64_t dim, double theta) {
  auto exponents = at::arange(0, dim, 2, at::kFloat) / static_cast<double>(dim);
  return at::pow(theta, exponents).reciprocal();
}

at::Tensor yarn_frequencies(const RopeSettings& settings, const RopeSettings::Yarn& s) {
  const auto dim = static_cast<double>(settings.dim);
  // The dimension that turns so often within the original context.
  const auto dimension_of = [&](double turns) {
    return dim * std::log(s.original_max_positions / (turns * kTurn)) / (2 * std::log(settings.theta));
  };
  double low = dimension_of(s.beta_fast), high = dimension_of(s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  const auto ramp = ((at::arange(settings.dim / 2, at::kFloat) - low) / (high - low)).clamp_(0, 1);
  const auto kept = plain_frequencies(settings.dim, settings.theta);
  return kept / s.factor * ramp + kept * (1 - ramp);
}

}  // namespace

std::optional<std::int64_t> RopeSettings::boundary() const {
  if (const auto* dynamic = std::get_if<Dynamic>(&scaling)) return static_cast<std::int64_t>(dynamic->max_positions);
  if (const auto* some = std::get_if<LongRope>(&scaling))
    return static_cast<std::int64_t>(some->original_max_positions);
  return std::nullopt;
}

std::int64_t RopeSettings::longest(std::int64_t max_positions) const {
  const auto times = [&](double factor, double positions) {
    return std::max(max_positions, static_cast<std::int64_t>(factor * positions));
  };
  if (const auto* dynamic = std::get_if<Dynamic>(&scaling)) return times(dynamic->factor, dynamic->max_positions);
  if (const auto* yarn = std::get_if<Yarn>(&scaling)) return times(yarn->factor, yarn->original_max_positions);
  return max_positions;
}

at::Tensor rope_frequencies(const RopeSettings& settings, std::int64_t length) {
  at::NoGradGuard no_grad;
  if (const auto* s = std::get_if<RopeSettings::Yarn>(&settings.scaling)) return yarn_frequencies(settings, *s);
  double theta = settings.theta;
  if (const auto* s = std::get_if<RopeSettings::Dynamic>(&settings.scaling)) {
    const auto dim = static_cast<double>(settings.dim);
    const double times = std::max(1.0, static_cast<double>(length) / s->max_positions);
    theta *= std::pow(s->factor * times - (s->factor - 1), dim / (dim - 2));
  }
  auto frequencies = plain_frequencies(settings.dim, theta);
  if (const auto* s = std::get_if<RopeSettings::Linear>(&settings.scaling)) frequencies.div_(s->factor);
  auto* data = frequencies.data_ptr<float>();
  for (std::int64_t i = 0; i < frequencies.size(0); ++i) {
    if (const auto* s = std::get_if<RopeSettings::Llama3>(&settings.scaling)) data[i] = stretched(data[i], *s);
    if (const auto* s = std::get_if<RopeSettings::LongRope>(&settings.scaling)) {
      const bool is_long = static_cast<double>(length) > s->original_max_positions;
      data[i] /= static_cast<float>((is_long ? s->long_factor : s->short_factor)[static_cast<std::size_t>(i)]);
    }
  }
  return frequencies;
}

Rope::Rope(RopeSettings settings) : settings_(std::move(settings)), frequencies_(rope_frequencies(settings_)) {}

at::Tensor Rope::angles(const at::Tensor& positions, const at::Tensor& lengths) const {
  const auto wide = positions.to(at::kFloat).unsqueeze(-1);
  auto result = wide * frequencies_.to(positions.device());
  const auto boundary = settings_.boundary();
  if (!boundary || !lengths.defined()) return result;
  const auto held = lengths.to(at::kCPU).contiguous();
  const std::set<std::int64_t> all(held.data_ptr<std::int64_t>(), held.data_ptr<std::int64_t>() + held.numel());
  for (const auto length : all)
    if (length > *boundary)
      result = at::where(lengths.eq(length).unsqueeze(-1),
                         wide * rope_frequencies(settings_, length).to(positions.device()), result);
  return result;
}

Rope::Rows Rope::rows(const at::Tensor& positions, at::ScalarType compute, const at::Tensor& lengths) const {
  at::NoGradGuard no_grad;
  // Rows that are all alike are worked out once.
  const bool alike = positions.size(0) > 1 && positions.stride(0) == 0 && !lengths.defined();
  const auto turned = angles(alike ? positions.narrow(0, 0, 1) : positions, lengths).unsqueeze(2);
  const auto cos = turned.cos() * settings_.magnitude, sin = turned.sin() * settings_.magnitude;
  return {at::cat({cos, cos}, -1).to(compute), at::cat({-sin, sin}, -1).to(compute)};
}

at::Tensor Rope::rotate(const at::Tensor& x, const Rows& rows) {
  const auto dim = rows.cos.size(-1), half = dim / 2;
  const auto swapped = at::cat({x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
  if (dim == x.size(-1)) return at::addcmul(x * rows.cos, swapped, rows.sin);
  const auto turned = at::addcmul(x.narrow(-1, 0, dim) * rows.cos, swapped, rows.sin);
  return at::cat({turned, x.narrow(-1, dim, x.size(-1) - dim)}, -1);
}

}  // namespace hansa::nn
