#include "topk.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <hansa/plugin.h>
#include <hansa/testing/compressor_suite.hpp>

#include "plugin_host/instance.hpp"
#include "positions.hpp"
#include "tensor/bridge.hpp"
#include "tensor/codec_chain.hpp"
#include "test.hpp"

using namespace hansa;
using topk::TopK;

namespace {

TensorSpec spec(std::vector<std::int64_t> shape, DType type = DType::f32) { return {"t", type, std::move(shape)}; }
at::Tensor tensor_of(const std::vector<float>& values) {
  auto made = at::empty({static_cast<std::int64_t>(values.size())}, at::TensorOptions().dtype(at::kFloat));
  std::copy(values.begin(), values.end(), made.mutable_data_ptr<float>());
  return made;
}
std::vector<float> values_of(const at::Tensor& tensor) {
  const auto flat = tensor.contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}
at::Tensor there_and_back(double fraction, const at::Tensor& in) {
  const TopK codec({fraction});
  return codec.decode(codec.encode(in, {}), spec(in.sizes().vec()), 0);
}

// A stable sort by magnitude: the first k stay.
std::vector<float> naive(std::vector<float> values, std::size_t k) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::fabs(static_cast<double>(values[a])) > std::fabs(static_cast<double>(values[b]));
  });
  for (std::size_t i = k; i < order.size(); ++i) values[order[i]] = 0;
  return values;
}

}  // namespace

TEST_CASE("topk holds what every compressor must, for every float type and fraction, and for whole numbers") {
  for (double fraction : {1e-9, 0.01, 0.3, 1.0}) {
    for (auto type : {DType::f32, DType::f16, DType::bf16, DType::u8, DType::i8, DType::i32})
      CHECK_NOTHROW(testing::check_compressor(TopK({fraction}), type));
  }
}

TEST_CASE("topk keeps the k largest magnitudes bit for bit and makes the others zero") {
  for (std::int64_t n : {1, 2, 10, 1000, 4099})
    for (double fraction : {1e-6, 0.003, 0.1, 0.5, 0.93, 1.0})
      for (double sigma : {1e-30, 1.0, 1e30}) {
        const auto in = testing::normal_tensor(DType::f32, {n}, static_cast<std::uint64_t>(n), sigma);
        const auto k =
            std::max<std::size_t>(1, static_cast<std::size_t>(std::llround(fraction * static_cast<double>(n))));
        const auto got = values_of(there_and_back(fraction, in)), want = naive(values_of(in), k);
        CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0);
      }
}

TEST_CASE("of equal magnitudes those that stand first are kept") {
  CHECK(values_of(there_and_back(0.5, tensor_of({1, -1, 1, -1, 1, 1}))) == std::vector<float>{1, -1, 1, 0, 0, 0});
  CHECK(values_of(there_and_back(0.5, tensor_of({1, -2, 1, 3, 1, 1}))) == std::vector<float>{1, -2, 0, 3, 0, 0});
  CHECK(values_of(there_and_back(0.25, at::zeros({8}))) == std::vector<float>(8));
  std::mt19937_64 engine(5);
  std::vector<float> few(3000);
  for (auto& value : few) value = static_cast<float>(static_cast<int>(engine() % 7) - 3);
  for (double fraction : {0.1, 0.4, 0.8})
    CHECK(values_of(there_and_back(fraction, tensor_of(few))) == naive(few, static_cast<std::size_t>(fraction * 3000)));
}

TEST_CASE("topk never lengthens, repeats what it gave, and neither NaN nor infinity makes it stumble") {
  auto in = testing::normal_tensor(DType::f32, {500}, 8);
  const auto once = there_and_back(0.2, in);
  CHECK(at::equal(there_and_back(0.2, once), once));
  double before = 0, after = 0;
  for (auto value : values_of(in)) before += static_cast<double>(value) * value;
  for (auto value : values_of(once)) after += static_cast<double>(value) * value;
  CHECK(after <= before);
  in.mutable_data_ptr<float>()[7] = std::nanf("");
  in.mutable_data_ptr<float>()[9] = -std::numeric_limits<float>::infinity();
  const auto odd = values_of(there_and_back(0.004, in));  // two of them
  CHECK(std::isnan(odd[7]));
  CHECK(std::isinf(odd[9]));
}

TEST_CASE("positions come back, and their length is that of the plan whatever they are") {
  std::mt19937_64 engine(3);
  for (std::int64_t n : {1, 2, 7, 8, 9, 100, 5000})
    for (std::int64_t k : std::vector<std::int64_t>{0, 1, n / 100, n / 3, n / 2, n - 1, n}) {
      std::vector<std::int64_t> all(static_cast<std::size_t>(n));
      std::iota(all.begin(), all.end(), std::int64_t{0});
      for (int round = 0; round < 5; ++round) {
        std::vector<std::int64_t> some;
        std::sample(all.begin(), all.end(), std::back_inserter(some), k, engine);
        if (round == 1) some.assign(all.end() - k, all.end());  // the longest first gap
        if (round == 2) some.assign(all.begin(), all.begin() + k);
        const auto bytes = topk::write_positions(some, n);
        CHECK(static_cast<std::int64_t>(bytes.size()) == topk::code_for(n, k).bytes);
        CHECK(topk::read_positions(bytes, n, k) == some);
      }
    }
}

TEST_CASE("positions take little more than their entropy, and never more than a bitmap") {
  constexpr std::int64_t n = 1 << 20;
  for (double density : {0.5, 0.1, 0.01, 0.001, 0.0001}) {
    const auto k = static_cast<std::int64_t>(density * n);
    const double entropy = -density * std::log2(density) - (1 - density) * std::log2(1 - density);
    const double bits = 8.0 * static_cast<double>(topk::code_for(n, k).bytes) / n;
    CHECK(bits <= 1.13 * entropy + 8.0 / n);
    CHECK(bits <= 1.0 + 8.0 / n);
  }
}

TEST_CASE("hostile positions are refused: beyond the tensor, too many, too few, too long a gap") {
  const auto good = topk::write_positions(std::vector<std::int64_t>{3, 50, 99}, 100);
  const auto code = topk::code_for(100, 3);
  CHECK_THROWS_WITH(topk::read_positions(good, 100, 4), Catch::Contains("same fraction"));
  CHECK_THROWS_WITH(topk::read_positions(std::vector<std::uint8_t>(code.bytes, 0xff), 100, 3),
                    Catch::Contains("end early"));
  auto longer = good;
  longer.back() |= 0x80;
  CHECK_THROWS_WITH(topk::read_positions(longer, 100, 3), Catch::Contains("more positions"));
  auto beyond = std::vector<std::uint8_t>(code.bytes, 0);
  for (int bit = 0; bit < code.bits; ++bit)
    beyond[0] |= static_cast<std::uint8_t>(2 << bit);  // a first gap of 2^bits - 1
  CHECK_THROWS_WITH(topk::read_positions(beyond, 3, 3), Catch::Contains("topk:"));
  // Whatever the bytes: an error, or k ascending positions below n.
  std::mt19937_64 engine(11);
  for (int round = 0; round < 20000; ++round) {
    const auto n = static_cast<std::int64_t>(engine() % 200), k = n ? static_cast<std::int64_t>(engine() % n) : 0;
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(topk::code_for(n, k).bytes));
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(engine() & engine());
    std::vector<std::int64_t> positions;
    try {
      positions = topk::read_positions(bytes, n, k);
    } catch (const std::invalid_argument&) {
      continue;
    }
    REQUIRE(static_cast<std::int64_t>(positions.size()) == k);
    for (std::size_t i = 0; i < positions.size(); ++i)
      REQUIRE((positions[i] < n && (i == 0 || positions[i] > positions[i - 1])));
    REQUIRE(topk::write_positions(positions, n) == bytes);  // one code for each choice
  }
}

TEST_CASE("topk refuses parts that do not belong to the tensor") {
  const TopK codec({0.1});
  const auto in = testing::normal_tensor(DType::f32, {100}, 1);
  const auto good = codec.encode(in, {});
  CHECK_THROWS_WITH(codec.decode(good, spec({200}), 0), Catch::Contains("same fraction"));
  CHECK_THROWS_WITH(TopK({0.2}).decode(good, spec({100}), 0), Catch::Contains("same fraction"));
  CHECK_THROWS_WITH(codec.decode({good.parts, "x"}, spec({100}), 0), Catch::Contains("no header"));
  CHECK_THROWS_WITH(codec.decode({{good.parts[1], good.parts[0]}, ""}, spec({100}), 0), Catch::Contains("expected"));
  CHECK_THROWS_WITH(codec.decode({{good.parts[0]}, ""}, spec({100}), 0), Catch::Contains("expected"));
  CHECK_THROWS_WITH(codec.decode({{good.parts[0], good.parts[1].to(at::kHalf)}, ""}, spec({100}), 0),
                    Catch::Contains("expected"));
}

TEST_CASE(
    "in a chain the values are quantised and the positions pass: from a hundred elements, little more than two bytes") {
  StrategyRegistry registry;
  for (const auto* name : {"hansa_int8.so", "hansa_zstd.so"})
    registry.scan({std::filesystem::path(HANSA_PLUGIN_FILE).parent_path() / name, "the test"});
  const auto int8 = create<Compressor>(registry, "int8", Value(), HostServices{});
  const auto zstd = create<Compressor>(registry, "zstd", Value(), HostServices{});
  const TopK sparse({0.01});
  constexpr std::int64_t n = 100000, k = 1000;
  const auto in = testing::normal_tensor(DType::f32, {n}, 12);
  const auto exact = values_of(there_and_back(0.01, in));
  for (const auto& stages :
       std::vector<std::vector<const Compressor*>>{{&sparse, int8.get()}, {&sparse, int8.get(), zstd.get()}}) {
    const CodecChain chain(stages);
    const auto encoded = chain.encode(in, {1, 2});
    CHECK(static_cast<std::int64_t>(encoded.bytes()) <= k + topk::code_for(n, k).bytes + 4 * (k / 256 + 1) + 200);
    CHECK(encoded.bytes() <= chain.plan(spec({n})).most_bytes);
    PacketPlan plan({{}, {{"c", {{"t", encoded.code}}}}});
    AlignedBytes memory(plan.total_bytes());
    PacketWriter writer(plan, memory.sink());
    for (const auto& leaf : encoded.leaves) writer.write(bytes_of(leaf));
    writer.finish();
    const PacketView view(memory.bytes());
    const auto back = values_of(chain.decode(view, view.contents().channels.at(0).entries.at(0).code, spec({n}), 1));
    float largest = 0;
    for (auto value : exact) largest = std::max(largest, std::fabs(value));
    bool close = true, same_places = true;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      close = close && std::fabs(back[i] - exact[i]) <= largest / 127 * 0.51f;
      same_places = same_places && (exact[i] == 0) == (back[i] == 0);
    }
    CHECK(close);
    CHECK(same_places);
  }
}
