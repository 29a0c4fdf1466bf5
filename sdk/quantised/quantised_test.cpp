// Against naive forms of the same rules; tests/parity/test_quantised.py has the bytes of bitsandbytes.
#include <cmath>
#include <limits>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include "base/error.hpp"
#include "quantised/stored_weight.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::quantised;

namespace {

const std::vector<std::vector<std::int64_t>> kShapes{{64, 64}, {130, 96}, {37, 23}, {3, 1}, {300, 256}};

at::Tensor weight_of(const std::vector<std::int64_t>& shape) {
  auto weight = at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(4), at::kFloat) * 0.02;
  weight[0].zero_();
  return weight;
}

double scale_of(const Nf4& held, std::int64_t block) {
  return dynamic_map()[held.scales[block].item<std::uint8_t>()] * held.spans[block / Nf4::kSpanned].item<float>() +
         held.offset;
}

}  // namespace

TEST_CASE("NF4 takes the nearest of 16 levels and comes back as level times scale") {
  for (const auto& shape : kShapes) {
    const auto weight = weight_of(shape);
    const auto held = to_nf4(weight);
    auto back = at::zeros(shape, at::kFloat);
    dequantise(held, back);
    const auto flat = weight.flatten(), got = back.flatten();
    for (std::int64_t i = 0; i < flat.numel(); ++i) {
      const auto byte = held.codes[i / 2].item<std::uint8_t>();
      const auto code = static_cast<std::size_t>(i % 2 == 0 ? byte >> 4 : byte & 15);
      const auto block = i / Nf4::kBlock, first = block * Nf4::kBlock;
      const auto most = flat.narrow(0, first, std::min(Nf4::kBlock, flat.numel() - first)).abs().max().item<double>();
      const double value = most > 0 ? flat[i].item<double>() / most : 0;
      double best = 9;
      for (const float level : nf4_levels()) best = std::min(best, std::abs(level - value));
      REQUIRE(std::abs(nf4_levels()[code] - value) <= best + 1e-6);
      REQUIRE(got[i].item<double>() == Approx(nf4_levels()[code] * scale_of(held, block)).margin(1e-9));
      REQUIRE(scale_of(held, block) == Approx(most).margin(0.06 * 0.1));  // 8 bits of the spread of the scales
    }
  }
}

TEST_CASE("Int8 rounds to the 127th part of the row's largest") {
  for (const auto& shape : kShapes) {
    const auto weight = weight_of(shape);
    const auto held = to_int8(weight);
    auto back = at::zeros(shape, at::kFloat);
    dequantise(held, back);
    const auto most = weight.abs().amax(1, true);
    CHECK(((back - weight).abs() <= most / 253).all().item<bool>());
    CHECK(held.codes[0].abs().max().item<int>() == 0);
  }
}

TEST_CASE("A stored weight comes back the same in memory of its own and in the workspace, bf16 as fp32 rounded") {
  const auto workspace = std::make_shared<Workspace>();
  for (const auto how : {BaseDtype::Nf4, BaseDtype::Int8})
    for (const auto& shape : kShapes) {
      const StoredWeight stored(how, weight_of(shape), workspace);
      CHECK(stored.rows() == shape[0]);
      CHECK(stored.columns() == shape[1]);
      CHECK(stored.bytes() == bytes_of(how, shape[0], shape[1], 4));
      const auto plain = stored.get(at::kFloat);
      CHECK(at::equal(plain, stored.borrow(at::kFloat)));
      CHECK(at::equal(plain.to(at::kBFloat16), stored.get(at::kBFloat16)));
      CHECK(at::equal(plain.to(at::kBFloat16), stored.borrow(at::kBFloat16)));
    }
  CHECK(!StoredWeight().defined());
  CHECK(bytes_of(BaseDtype::Compute, 3, 5, 2) == 30);
}

TEST_CASE("LibTorch's operators, as other devices use them, give the same bits") {
  for (const auto& shape : kShapes)
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto weight = weight_of(shape);
      auto loop = at::zeros(shape, type), operators = at::ones_like(loop);
      dequantise(to_nf4(weight), loop);
      dequantise_by_operators(to_nf4(weight), operators);
      CHECK(at::equal(loop, operators));
      dequantise(to_int8(weight), loop);
      dequantise_by_operators(to_int8(weight), operators);
      CHECK(at::equal(loop, operators));
    }
}

TEST_CASE("Weights that are not finite are refused") {
  for (const float strange : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const auto how : {BaseDtype::Nf4, BaseDtype::Int8}) {
      auto weight = weight_of({4, 70});
      weight[2][65].fill_(strange);
      CHECK_THROWS_AS(StoredWeight(how, weight, nullptr), Error);
    }
}
