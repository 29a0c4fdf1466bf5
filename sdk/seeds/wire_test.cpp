#include "seeds/wire.hpp"

#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Half.h>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::seeds;
using Catch::Matchers::Contains;

namespace {

at::Tensor bytes(std::initializer_list<int> values) {
  auto made = at::empty({static_cast<std::int64_t>(values.size())}, at::TensorOptions().dtype(at::kByte));
  auto* to = made.mutable_data_ptr<std::uint8_t>();
  for (auto value : values) *to++ = static_cast<std::uint8_t>(value);
  return made;
}
at::Tensor halves(std::initializer_list<double> values) { return to_half(values); }

}  // namespace

TEST_CASE("seeds and scalars come back as they were sent") {
  const Scalars sent{{0, 1.5}, {1, -2}, {129, 0.25}, {130, 0}, {4095, 65504}};
  const auto packed = encode(sent);
  CHECK(packed[0].numel() == 6);  // the gap of 3,964 takes two bytes
  const auto got = decode(packed[0], packed[1], 4096);
  REQUIRE(got.size() == sent.size());
  std::size_t i = 0;
  for (const auto& [seed, scalar] : sent) CHECK(got[i++] == std::pair(seed, static_cast<float>(scalar)));
  CHECK(decode(encode({})[0], encode({})[1], 16).empty());
}

TEST_CASE("random lists of seeds survive, whatever their gaps") {
  std::mt19937 engine(5);
  for (int round = 0; round < 50; ++round) {
    Scalars sent;
    const std::uint32_t candidates = round % 2 ? 1 << 24 : 300;
    for (int i = 0; i < 200; ++i) sent[engine() % candidates] = static_cast<double>(engine() % 100);
    const auto packed = encode(sent);
    const auto got = decode(packed[0], packed[1], candidates);
    REQUIRE(got.size() == sent.size());
    std::size_t i = 0;
    for (const auto& [seed, scalar] : sent) REQUIRE(got[i++] == std::pair(seed, static_cast<float>(scalar)));
  }
}

TEST_CASE("200 steps at 4,096 candidates take at most 10 kB up and down together, with 1 kB left for framing") {
  std::mt19937 engine(1);
  for (int round = 0; round < 20; ++round) {
    Scalars used;
    for (int step = 0; step < 200; ++step) used[engine() % 4096] += 1;
    const auto up = encode(used);
    CHECK(up[0].nbytes() + up[1].nbytes() + zero_accumulators(4096).nbytes() < 9000);
  }
  Scalars worst;  // one per step, as far apart as they fit
  for (std::uint32_t step = 0; step < 200; ++step) worst[step * 20] = 1;
  CHECK(encode(worst)[0].numel() == 200);
}

TEST_CASE("malformed lists of seeds are refused, each with its reason") {
  CHECK_THROWS_WITH(decode(bytes({1}), halves({1, 2}), 16), Contains("cut off"));
  CHECK_THROWS_WITH(decode(bytes({128}), halves({1}), 16), Contains("cut off"));
  CHECK_THROWS_WITH(decode(bytes({255, 255, 255, 255, 255, 1}), halves({1}), 16), Contains("malformed"));
  CHECK_THROWS_WITH(decode(bytes({1, 2}), halves({1}), 16), Contains("longer"));
  CHECK_THROWS_WITH(decode(bytes({16}), halves({1}), 16), Contains("not among the 16"));
  CHECK_THROWS_WITH(decode(bytes({10, 5}), halves({1, 1}), 16), Contains("seed 16 is not"));
  CHECK_THROWS_WITH(decode(bytes({0}), at::full({1}, NAN, at::kHalf), 16), Contains("not a number"));
  CHECK_THROWS_WITH(decode(bytes({0}), at::zeros({1}), 16), Contains("half precision"));
  CHECK_THROWS_WITH(decode(bytes({0}), at::zeros({17}, at::kHalf), 16), Contains("more scalars"));
}

TEST_CASE("what half precision cannot hold is refused by name, never made infinite") {
  CHECK_THROWS_WITH(encode({{7, 70000.0}}), Contains("scalar of seed 7 is 70000"));
  CHECK_THROWS_WITH(encode({{7, NAN}}), Contains("seed 7"));
  CHECK_THROWS_WITH(halves({0, -65600}), Contains("accumulator of seed 1"));
  CHECK_THROWS_WITH(sum(halves({1, 60000}), halves({1, 60000})), Contains("accumulator of seed 1 is 120000"));
}

TEST_CASE("the canonical sum rounds after each entry, and one entry stands for those before it") {
  std::mt19937 engine(3);
  std::normal_distribution<double> normal;
  std::vector<at::Tensor> entries;
  for (int i = 0; i < 12; ++i) {
    std::vector<double> entry(100);
    for (auto& x : entry) x = 30 * normal(engine);
    entries.push_back(to_half(entry));
  }
  auto all = zero_accumulators(100), compacted = zero_accumulators(100);
  for (const auto& entry : entries) all = sum(all, entry);
  for (int i = 0; i < 7; ++i) compacted = sum(compacted, entries[static_cast<std::size_t>(i)]);
  auto late = sum(zero_accumulators(100), compacted);
  for (std::size_t i = 7; i < 12; ++i) late = sum(late, entries[i]);
  CHECK(at::equal(late, all));
  // Naively: a half after each step, which is not the half of the exact sum.
  bool differs = false;
  for (int k = 0; k < 100; ++k) {
    float want = 0;
    double exact = 0;
    for (const auto& entry : entries) {
      const float x = static_cast<float>(entry.const_data_ptr<c10::Half>()[k]);
      want = static_cast<float>(c10::Half(want + x));
      exact += x;
    }
    const float got = static_cast<float>(all.const_data_ptr<c10::Half>()[k]);
    CHECK(got == want);
    differs = differs || got != static_cast<float>(c10::Half(static_cast<float>(exact)));
  }
  CHECK(differs);
  CHECK_THROWS_WITH(sum(all, zero_accumulators(99)), Contains("the same `seeds`"));
}
