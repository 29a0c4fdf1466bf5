#include "int8.hpp"

#include <cmath>
#include <limits>

#include <ATen/ops/zeros.h>
#include <hansa/plugin.h>
#include <hansa/testing/compressor_suite.hpp>

#include "test.hpp"

using namespace hansa;
using int8::Int8, int8::Params, int8::Rounding;

namespace {

TensorSpec spec(std::vector<std::int64_t> shape) { return {"t", DType::f32, std::move(shape)}; }

}  // namespace

TEST_CASE("int8 holds what every compressor must, for every float type, block and rounding") {
  for (auto type : {DType::f32, DType::f16, DType::bf16})
    for (std::int64_t block : {8, 100, 256})
      for (auto rounding : {Rounding::Nearest, Rounding::Stochastic})
        CHECK_NOTHROW(testing::check_compressor(Int8(Params{block, rounding}), type));
}

TEST_CASE("int8 errs by at most half a step when rounding to nearest and one step when stochastic") {
  const auto in = testing::normal_tensor(DType::f32, {1000}, 3, 1e-3);
  for (auto rounding : {Rounding::Nearest, Rounding::Stochastic}) {
    const Int8 codec(Params{64, rounding});
    const auto encoded = codec.encode(in, {0, 7});
    const auto back = codec.decode(encoded, spec({1000}), 0);
    for (int i = 0; i < 1000; ++i) {
      double largest = 0;
      for (int j = i / 64 * 64; j < std::min(1000, i / 64 * 64 + 64); ++j)
        largest = std::max(largest, std::fabs(static_cast<double>(in.const_data_ptr<float>()[j])));
      const double step = largest / 127 * (rounding == Rounding::Nearest ? 0.5 : 1.0);
      CHECK(std::fabs(static_cast<double>(back.const_data_ptr<float>()[i]) - in.const_data_ptr<float>()[i]) <=
            step * (1 + 1e-5));
    }
  }
}

TEST_CASE("stochastic int8 is unbiased, nearest is not") {
  auto in = at::zeros({64});
  for (int i = 0; i < 64; ++i) in.mutable_data_ptr<float>()[i] = 0.013f * static_cast<float>(i) - 0.4f;
  const double step = 0.419 / 127;
  const auto bias = [&](Rounding rounding) {
    const Int8 codec(Params{64, rounding});
    std::vector<double> mean(64);
    for (std::uint64_t own = 0; own < 20000; ++own) {
      const auto back = codec.decode(codec.encode(in, {0, own * 0x123456789ull}), spec({64}), 0);
      for (int i = 0; i < 64; ++i) mean[i] += back.const_data_ptr<float>()[i] / 20000;
    }
    double worst = 0;
    for (int i = 0; i < 64; ++i) worst = std::max(worst, std::fabs(mean[i] - in.const_data_ptr<float>()[i]));
    return worst / step;
  };
  CHECK(bias(Rounding::Stochastic) < 0.02);  // standard error 0.5 / sqrt(20000) = 0.0035, 5.7 of them
  CHECK(bias(Rounding::Nearest) > 0.2);
  CHECK((int8::traits({64, Rounding::Stochastic}) & HANSA_TRAIT_UNBIASED) != 0);
  CHECK((int8::traits({64, Rounding::Nearest}) & HANSA_TRAIT_UNBIASED) == 0);
  CHECK((int8::traits({}) & HANSA_TRAIT_NORM_SAFE) == 0);
}

TEST_CASE("int8 can make a norm larger, which is why it is not NormSafe") {
  auto in = at::zeros({8});
  for (int i = 0; i < 8; ++i) in.mutable_data_ptr<float>()[i] = i == 0 ? 127.0f : 0.6f;
  const Int8 codec(Params{8, Rounding::Nearest});
  const auto back = codec.decode(codec.encode(in, {}), spec({8}), 0);
  CHECK(back.const_data_ptr<float>()[1] == 1.0f);
}

TEST_CASE("int8 keeps zeros, the smallest and the largest floats finite") {
  const Int8 codec(Params{8, Rounding::Nearest});
  auto in = at::zeros({24});
  in.mutable_data_ptr<float>()[3] = std::numeric_limits<float>::denorm_min();
  in.mutable_data_ptr<float>()[9] = std::numeric_limits<float>::max();
  in.mutable_data_ptr<float>()[10] = -std::numeric_limits<float>::max();
  const auto back = codec.decode(codec.encode(in, {}), spec({24}), 0);
  CHECK(back.const_data_ptr<float>()[3] == std::numeric_limits<float>::denorm_min());
  CHECK(back.const_data_ptr<float>()[9] == Approx(std::numeric_limits<float>::max()).epsilon(0.01));
  CHECK(back.const_data_ptr<float>()[10] == Approx(-std::numeric_limits<float>::max()).epsilon(0.01));
  CHECK(back.const_data_ptr<float>()[20] == 0);
}

TEST_CASE("int8 refuses what it cannot code or decode") {
  const Int8 codec(Params{8, Rounding::Nearest});
  auto in = at::zeros({9});
  auto good = codec.encode(in, {});
  CHECK_THROWS_WITH(Int8(Params{4096, Rounding::Nearest}).decode(good, spec({9}), 0),
                    Catch::Contains("same block size"));
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -1.0f}) {
    good.parts[1].mutable_data_ptr<float>()[1] = bad;
    CHECK_THROWS_WITH(codec.decode(good, spec({9}), 0), Catch::Contains("a scale is"));
  }
  in.mutable_data_ptr<float>()[8] = std::nanf("");
  CHECK_THROWS_WITH(codec.encode(in, {}), Catch::Contains("NaN or infinity"));
  CHECK_THROWS_WITH(codec.encode(in.to(at::kBool), {}), Catch::Contains("floating-point"));
  CHECK_THROWS_WITH(codec.plan({"t", DType::f8e4m3, {3}}), Catch::Contains("f8e4m3"));
}

TEST_CASE("int8 passes whole numbers as they are: the positions of an earlier stage") {
  for (auto type : {DType::i8, DType::u8, DType::i32, DType::i64}) {
    CHECK_NOTHROW(testing::check_compressor(Int8(Params{}), type));
    const auto in = testing::normal_tensor(type, {7, 9}, 5);
    const auto encoded = Int8(Params{}).encode(in, {});
    CHECK(testing::same_bits(Int8(Params{}).decode(encoded, {"t", type, {7, 9}}, 0), in));
    CHECK_THROWS_WITH(Int8(Params{}).decode({{in.to(at::kFloat)}, ""}, {"t", type, {7, 9}}, 0),
                      Catch::Contains("as one part"));
  }
}
