#include "zstd_stage.hpp"

#include <ATen/ops/zeros.h>
#include <hansa/plugin.h>
#include <zstd.h>
#include <hansa/testing/compressor_suite.hpp>

#include "test.hpp"

using namespace hansa;
using zstd::Zstd, zstd::Params;

TEST_CASE("zstd holds what every compressor must, for every dtype") {
  for (int type = 0; type <= 7; ++type)
    for (bool shuffle : {false, true})
      CHECK_NOTHROW(testing::check_compressor(Zstd(Params{3, shuffle}), static_cast<DType>(type)));
}

TEST_CASE("zstd gives back every bit, NaN included") {
  for (std::int64_t level : {1, 19})
    for (bool shuffle : {false, true})
      for (int type = 0; type <= 7; ++type) {
        auto in = testing::normal_tensor(static_cast<DType>(type), {31, 17}, 9);
        std::memset(in.mutable_data_ptr(), 0xff, 16);
        const Zstd codec(Params{level, shuffle});
        CHECK(testing::same_bits(codec.decode(codec.encode(in, {}), {"t", static_cast<DType>(type), {31, 17}}, 0), in));
      }
}

TEST_CASE("either side may shuffle or not: the header says what was done") {
  const auto in = testing::normal_tensor(DType::f32, {100}, 9);
  const Zstd shuffling(Params{1, true}), plain(Params{1, false});
  CHECK(testing::same_bits(plain.decode(shuffling.encode(in, {}), {"t", DType::f32, {100}}, 0), in));
  CHECK(testing::same_bits(shuffling.decode(plain.encode(in, {}), {"t", DType::f32, {100}}, 0), in));
}

TEST_CASE("a frame that would grow beyond the tensor is refused") {
  const Zstd codec(Params{});
  const auto bomb = codec.encode(at::zeros({64 << 20}, at::TensorOptions().dtype(at::kByte)), {});
  CHECK(bomb.parts.at(0).nbytes() < 10000);
  CHECK_THROWS_WITH(codec.decode(bomb, {"t", DType::u8, {100}}, 0), Catch::Contains("100 bytes of this tensor"));
  // A frame that lies about its size, and two frames in a row.
  auto two = codec.encode(at::zeros({100}, at::TensorOptions().dtype(at::kByte)), {});
  auto doubled = at::zeros({2 * two.parts.at(0).numel()}, at::TensorOptions().dtype(at::kByte));
  for (int i = 0; i < 2; ++i)
    doubled.slice(0, i * two.parts[0].numel(), (i + 1) * two.parts[0].numel()).copy_(two.parts[0]);
  two.parts[0] = doubled;
  CHECK_THROWS_AS(codec.decode(two, {"t", DType::u8, {100}}, 0), std::invalid_argument);
}

TEST_CASE("zstd shrinks what has structure and its plan's typical size is near the truth for deltas") {
  const Zstd codec(Params{});
  const auto delta = testing::normal_tensor(DType::f32, {200, 500}, 4, 1e-4);
  const auto plan = codec.plan({"t", DType::f32, {200, 500}});
  const auto bytes = codec.encode(delta, {}).parts.at(0).nbytes();
  CHECK(static_cast<double>(bytes) == Approx(static_cast<double>(plan.typical_bytes)).epsilon(0.1));
  const auto codes = testing::normal_tensor(DType::i8, {200, 500}, 4);  // standard deviation 20
  CHECK(codec.encode(codes, {}).parts.at(0).nbytes() < 95000);
}
