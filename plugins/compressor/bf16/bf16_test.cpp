#include "bf16.hpp"

#include <cmath>
#include <limits>

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <hansa/plugin.h>
#include <hansa/testing/compressor_suite.hpp>

#include "test.hpp"

using namespace hansa;
using bf16::Bf16, bf16::Params, bf16::Rounding;

namespace {

TensorSpec spec(std::vector<std::int64_t> shape) { return {"t", DType::f32, std::move(shape)}; }
at::Tensor there_and_back(Rounding rounding, const at::Tensor& in, std::uint64_t own = 0) {
  const Bf16 codec(Params{rounding});
  return codec.decode(codec.encode(in, {0, own}), spec(in.sizes().vec()), 0);
}

}  // namespace

TEST_CASE("bf16 holds what every compressor must") {
  for (auto rounding : {Rounding::Nearest, Rounding::Stochastic, Rounding::TowardZero})
    CHECK_NOTHROW(testing::check_compressor(Bf16(Params{rounding}), DType::f32));
}

TEST_CASE("bf16 to nearest is LibTorch's conversion for finite values") {
  const auto in = testing::normal_tensor(DType::f32, {10000}, 5, 1e-4);
  CHECK(at::equal(there_and_back(Rounding::Nearest, in), in.to(at::kBFloat16).to(at::kFloat)));
}

TEST_CASE("bf16 errs by at most 1/256 to nearest, 1/128 otherwise, and toward zero never grows") {
  const auto in = testing::normal_tensor(DType::f32, {10000}, 6);
  for (auto rounding : {Rounding::Nearest, Rounding::Stochastic, Rounding::TowardZero}) {
    const auto back = there_and_back(rounding, in, 3);
    bool bounded = true, grows = false;
    for (int i = 0; i < 10000; ++i) {
      const double x = in.const_data_ptr<float>()[i], y = back.const_data_ptr<float>()[i];
      bounded = bounded && std::fabs(y - x) <= std::fabs(x) / (rounding == Rounding::Nearest ? 256 : 128);
      grows = grows || std::fabs(y) > std::fabs(x);
    }
    CHECK(bounded);
    CHECK(grows == (rounding != Rounding::TowardZero));
  }
  CHECK((bf16::traits({Rounding::TowardZero}) & HANSA_TRAIT_NORM_SAFE) != 0);
  CHECK((bf16::traits({Rounding::Nearest}) & (HANSA_TRAIT_NORM_SAFE | HANSA_TRAIT_UNBIASED)) == 0);
  CHECK((bf16::traits({Rounding::Stochastic}) & HANSA_TRAIT_UNBIASED) != 0);
}

TEST_CASE("stochastic bf16 is unbiased") {
  for (float x : {1.001f, -3.3333f, 1e-20f, 7.0f}) {
    const auto back = there_and_back(Rounding::Stochastic, at::full({200000}, x), 11);
    double mean = 0;
    for (int i = 0; i < 200000; ++i) mean += static_cast<double>(back.const_data_ptr<float>()[i]) / 200000;
    CHECK(mean == Approx(x).epsilon(6.0 / 128 * 0.5 / std::sqrt(200000.0)));
  }
}

TEST_CASE("finite values stay finite, others stay what they are") {
  const float largest = std::numeric_limits<float>::max(), infinity = std::numeric_limits<float>::infinity();
  for (auto rounding : {Rounding::Nearest, Rounding::Stochastic, Rounding::TowardZero}) {
    CHECK(std::isfinite(there_and_back(rounding, at::full({}, largest)).const_data_ptr<float>()[0]));
    CHECK(there_and_back(rounding, at::full({}, -infinity)).const_data_ptr<float>()[0] == -infinity);
    CHECK(std::isnan(there_and_back(rounding, at::full({}, std::nanf(""))).const_data_ptr<float>()[0]));
  }
}

TEST_CASE("bf16 refuses other dtypes and parts") {
  const Bf16 codec(Params{});
  CHECK_THROWS_WITH(codec.plan({"t", DType::f16, {3}}), Catch::Contains("f16"));
  CHECK_THROWS_AS(codec.encode(at::full({3}, 1, at::TensorOptions().dtype(at::kHalf)), {}), std::invalid_argument);
  CHECK_THROWS_AS(codec.decode({{at::full({3}, 1.0)}, ""}, spec({3}), 0), std::invalid_argument);
}

TEST_CASE("bf16 passes whole numbers as they are: the positions of an earlier stage") {
  for (auto type : {DType::i8, DType::u8, DType::i32, DType::i64}) {
    CHECK_NOTHROW(testing::check_compressor(Bf16(Params{}), type));
    const auto in = testing::normal_tensor(type, {7, 9}, 5);
    CHECK(testing::same_bits(Bf16(Params{}).decode(Bf16(Params{}).encode(in, {}), {"t", type, {7, 9}}, 0), in));
  }
}
