#include "quantised/nf4.hpp"

#include <algorithm>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include "quantised/expand.hpp"
#include "quantised/numbers.hpp"

namespace hansa::quantised {

namespace {

constexpr float kLeast = 1e-38F;        // what a block of zeros is divided by
constexpr std::int64_t kSteps = 65536;  // of [-1, 1], in which scales are rounded

std::int64_t parts(std::int64_t whole, std::int64_t part) { return (whole + part - 1) / part; }

// In the steps of LibTorch's arithmetic: the numbers are then those that bitsandbytes computes on this machine.
std::array<float, 256> make_dynamic_map() {
  const at::NoGradGuard no_grad;
  std::vector<float> all{0, 1};
  constexpr double kPowers[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
  for (int i = 0; i < 7; ++i) {
    const auto bounds = at::linspace(0.1, 1, (1 << i) + 1, at::kFloat);
    const auto count = bounds.size(0) - 1;
    const auto middles = (bounds.narrow(0, 0, count) + bounds.narrow(0, 1, count)) / 2.0;
    const auto values = (middles * kPowers[i]).contiguous();
    for (std::int64_t k = 0; k < count; ++k) {
      all.push_back(values.const_data_ptr<float>()[k]);
      all.push_back(-all.back());
    }
  }
  std::sort(all.begin(), all.end());
  std::array<float, 256> map{};
  std::copy(all.begin(), all.end(), map.begin());
  return map;
}

std::array<float, 15> make_bounds() {
  std::array<float, 15> bounds{};
  for (std::size_t k = 0; k < 15; ++k) bounds[k] = (nf4_levels()[k] + nf4_levels()[k + 1]) / 2;
  return bounds;
}

// Which entry of the dynamic map is nearest to each step of [-1, 1].
std::vector<std::uint8_t> make_steps() {
  const auto& map = dynamic_map();
  std::vector<std::uint8_t> steps(kSteps);
  std::size_t nearest = 0;
  for (std::int64_t i = 0; i < kSteps; ++i) {
    const auto step = static_cast<float>(i);
    const float value = (step + step) / static_cast<float>(kSteps - 1) - 1.0F;
    while (nearest < 255 && value > (map[nearest] + map[nearest + 1]) * 0.5F) ++nearest;
    steps[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(nearest);
  }
  return steps;
}

std::uint8_t code_of(float value) {
  static const auto bounds = make_bounds();
  int level = 0;
  for (const float bound : bounds) level += value > bound ? 1 : 0;
  return static_cast<std::uint8_t>(level);
}

// A block, perhaps shorter than others: the last. Its scale.
float to_codes(const float* values, std::int64_t count, std::uint8_t* codes) {
  const bool whole = count == Nf4::kBlock;
  const float most = largest(values, count), divisor = std::max(most, kLeast), inverse = 1.0F / divisor;
  const auto scaled = [&](std::int64_t i) { return whole ? values[i] * inverse : values[i] / divisor; };
  for (std::int64_t i = 0; i < count; i += 2) {
    const auto second = i + 1 < count ? code_of(scaled(i + 1)) : code_of(0);
    codes[i / 2] = static_cast<std::uint8_t>(code_of(scaled(i)) << 4 | second);
  }
  return whole ? most : divisor;
}

// The scales in 8 bits.
void hold_scales(Nf4& held, const at::Tensor& scales) {
  static const auto steps = make_steps();
  held.offset = scales.mean().item<float>();
  const auto count = scales.numel();
  held.scales = at::empty({count}, at::kByte);
  held.spans = at::empty({parts(count, Nf4::kSpanned)}, at::kFloat);
  const auto centred = scales - held.offset;
  const auto* from = centred.const_data_ptr<float>();
  auto* to = held.scales.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t first = 0; first < count; first += Nf4::kSpanned) {
    const auto some = std::min(Nf4::kSpanned, count - first);
    const float most = largest(from + first, some);
    held.spans.mutable_data_ptr<float>()[first / Nf4::kSpanned] = most;
    if (most == 0) {
      std::fill(to + first, to + first + some, std::uint8_t{0});
      continue;
    }
    const float inverse = 1.0F / most;
    for (std::int64_t i = first; i < first + some; ++i) {
      const float value = std::clamp(from[i] * inverse, -1.0F, 1.0F);
      const float step = std::fma((value + 1.0F) * 0.5F, static_cast<float>(kSteps - 1), 0.5F);
      to[i] = steps[static_cast<std::size_t>(step) % kSteps];
    }
  }
}

template <class To>
void expand_blocks(const Nf4& held, To* to, std::int64_t first, std::int64_t last) {
  const auto& map = dynamic_map();
  const auto& levels = nf4_levels();
  const auto* codes = held.codes.const_data_ptr<std::uint8_t>();
  const auto* scales = held.scales.const_data_ptr<std::uint8_t>();
  const auto* spans = held.spans.const_data_ptr<float>();
  const auto whole = held.rows * held.columns;
  for (auto block = first; block < last; ++block) {
    const float scale = map[scales[block]] * spans[block / Nf4::kSpanned] + held.offset;
    To table[16];
    for (std::size_t k = 0; k < 16; ++k) table[k] = rounded(levels[k] * scale, table);
    const auto begin = block * Nf4::kBlock, count = std::min(Nf4::kBlock, whole - begin), even = count / 2 * 2;
    expand(codes + begin / 2, even, table, to + begin);
    if (count != even) to[begin + even] = table[codes[(begin + even) / 2] >> 4];
  }
}

}  // namespace

const std::array<float, 16>& nf4_levels() {
  static constexpr std::array<float, 16> levels{
      -1.0F,
      -0.6961928009986877F,
      -0.5250730514526367F,
      -0.39491748809814453F,
      -0.28444138169288635F,
      -0.18477343022823334F,
      -0.09105003625154495F,
      0.0F,
      0.07958029955625534F,
      0.16093020141124725F,
      0.24611230194568634F,
      0.33791524171829224F,
      0.44070982933044434F,
      0.5626170039176941F,
      0.7229568362236023F,
      1.0F,
  };
  return levels;
}

const std::array<float, 256>& dynamic_map() {
  static const auto map = make_dynamic_map();
  return map;
}

Nf4 to_nf4(const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  Nf4 held{.rows = weight.size(0), .columns = weight.size(1), .codes = {}, .scales = {}, .spans = {}};
  const auto whole = weight.numel(), blocks = parts(whole, Nf4::kBlock);
  held.codes = at::empty({parts(whole, 2)}, at::kByte);
  const auto scales = at::empty({blocks}, at::kFloat);
  const auto* values = weight.const_data_ptr<float>();
  auto* codes = held.codes.mutable_data_ptr<std::uint8_t>();
  auto* to = scales.mutable_data_ptr<float>();
  at::parallel_for(0, blocks, 1024, [&](std::int64_t first, std::int64_t last) {
    for (auto block = first; block < last; ++block) {
      const auto begin = block * Nf4::kBlock;
      to[block] = to_codes(values + begin, std::min(Nf4::kBlock, whole - begin), codes + begin / 2);
    }
  });
  hold_scales(held, scales);
  return held;
}

Nf4 on(const Nf4& held, at::Device device) {
  auto there = held;
  there.codes = held.codes.to(device);
  there.scales = held.scales.to(device);
  there.spans = held.spans.to(device);
  return there;
}

void dequantise_by_operators(const Nf4& held, const at::Tensor& into) {
  const at::NoGradGuard no_grad;
  const auto device = held.codes.device();
  const auto table = [&](const auto& numbers) {
    return at::tensor(at::ArrayRef<float>(numbers), at::kFloat).to(device);
  };
  const auto whole = held.rows * held.columns, blocks = held.scales.numel();
  const auto spans = held.spans.repeat_interleave(Nf4::kSpanned).narrow(0, 0, blocks);
  const auto scales = table(dynamic_map()).index_select(0, held.scales.to(at::kInt)).mul_(spans).add_(held.offset);
  const auto codes = at::stack({held.codes.bitwise_right_shift(4), held.codes.bitwise_and(15)}, 1).view({-1});
  auto values = table(nf4_levels()).index_select(0, codes.narrow(0, 0, whole).to(at::kInt));
  const auto full = whole / Nf4::kBlock;  // the last block may be shorter
  values.narrow(0, 0, full * Nf4::kBlock).view({full, Nf4::kBlock}).mul_(scales.narrow(0, 0, full).unsqueeze(1));
  if (full < blocks) values.narrow(0, full * Nf4::kBlock, whole - full * Nf4::kBlock).mul_(scales.narrow(0, full, 1));
  into.copy_(values.view({held.rows, held.columns}));
}

void dequantise(const Nf4& held, const at::Tensor& into) {
  if (!into.is_cpu()) return dequantise_by_operators(held, into);
  const auto blocks = held.scales.numel();
  at::parallel_for(0, blocks, 1024, [&](std::int64_t first, std::int64_t last) {
    if (into.scalar_type() == at::kFloat)
      expand_blocks(held, into.mutable_data_ptr<float>(), first, last);
    else
      expand_blocks(held, reinterpret_cast<std::uint16_t*>(into.mutable_data_ptr<at::BFloat16>()), first, last);
  });
}

}  // namespace hansa::quantised
