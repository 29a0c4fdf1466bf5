#include "nn/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/TensorOperators.h>

namespace hansa::nn {

namespace {

// Wavelengths beyond the original context are stretched by `factor`, short ones stay, and between there is a ramp.
float stretched(float frequency, const RopeSettings::Llama3& s) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double longest_kept = s.original_max_positions / s.high_frequency_factor;
  const double shortest_stretched = s.original_max_positions / s.low_frequency_factor;
  if (wavelength < longest_kept) return frequency;
  if (wavelength > shortest_stretched) return static_cast<float>(frequency / s.factor);
  const double smooth = (s.original_max_positions / wavelength - s.low_frequency_factor) /
                        (s.high_frequency_factor - s.low_frequency_factor);
  return static_cast<float>((1 - smooth) * frequency / s.factor + smooth * frequency);
}

}  // namespace

at::Tensor rope_frequencies(const RopeSettings& settings) {
  at::NoGradGuard no_grad;
  // In fp32, as the checkpoints' own code does: at position 100,000 the last bits of a frequency are visible.
  auto exponents = at::arange(0, settings.head_dim, 2, at::kFloat) / static_cast<double>(settings.head_dim);
  auto frequencies = at::pow(settings.theta, exponents).reciprocal();
  if (!settings.llama3) return frequencies;
  auto* data = frequencies.data_ptr<float>();
  for (std::int64_t i = 0; i < frequencies.size(0); ++i) data[i] = stretched(data[i], *settings.llama3);
  return frequencies;
}

Rope::Rope(const RopeSettings& settings) : frequencies_(rope_frequencies(settings)) {}

Rope::Rows Rope::rows(const at::Tensor& positions, at::ScalarType compute) {
  at::NoGradGuard no_grad;
  const auto needed = positions.max().item<std::int64_t>() + 1;
  if (!cos_.defined() || cos_.size(0) < needed) {
    const auto rows = std::max<std::int64_t>(needed, cos_.defined() ? 2 * cos_.size(0) : 256);
    auto angles = at::outer(at::arange(rows, at::kFloat), frequencies_);
    cos_ = at::cat({angles.cos(), angles.cos()}, 1);
    sin_ = at::cat({-angles.sin(), angles.sin()}, 1);
  }
  auto pick = [&](const at::Tensor& table) {
    auto picked = table.index_select(0, positions.reshape({-1})).to(compute);
    return picked.view({positions.size(0), positions.size(1), 1, table.size(1)});
  };
  return {pick(cos_), pick(sin_)};
}

at::Tensor Rope::rotate(const at::Tensor& x, const Rows& rows) {
  const auto half = x.size(-1) / 2;
  auto swapped = at::cat({x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
  return at::addcmul(x * rows.cos, swapped, rows.sin);
}

}  // namespace hansa::nn
