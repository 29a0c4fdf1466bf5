// Error memory around clip and codecs, several channels in one upload, and the seeds that both sides share.
#include "pipeline/upload.hpp"

#include <chrono>
#include <fstream>
#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "fold/component_file.hpp"
#include "pipeline/planned_sizes.hpp"
#include "pipeline/stages.hpp"
#include "tensor/bridge.hpp"

#include "owned_instance.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::pipeline;
using Catch::Matchers::Contains;

namespace {

constexpr std::int64_t kSize = 64;

class Largest final : public Stateless<Compressor> {  // keeps the largest eighth, bit for bit
 public:
  SizePlan plan(const TensorSpec& in) const override {
    const auto bytes = static_cast<std::uint64_t>(in.elements()) * 4;
    return {{{"", DType::f32, in.shape}}, bytes, bytes};
  }
  Encoded encode(const at::Tensor& in, Seeds) const override {
    auto flat = in.flatten().clone();
    auto order = std::get<1>(flat.abs().sort(0, true));
    for (std::int64_t i = kSize / 8; i < kSize; ++i) flat[order[i].item<std::int64_t>()] = 0;
    return {{flat.view(in.sizes())}, ""};
  }
  at::Tensor decode(const Encoded& encoded, const TensorSpec&, std::uint64_t) const override {
    return encoded.parts[0].clone();
  }
};

class NoNoise final : public SecureRng {
 public:
  at::Tensor gaussian(at::IntArrayRef shape, double) override { return at::zeros(shape); }
};

WorkOrder order_of() {
  WorkOrder order;
  order.plan.round = 3;
  const Layout layout{{{"w", DType::f32, {kSize}}}, {{"", {0}}}};
  order.exchange.roles = {Role::Shared};
  order.exchange.up = {{std::string(kAdapterChannel), layout}};
  return order;
}

// Multiples of 1/1024 up to a few units: sums of some dozens of them are exact in fp32, so "the same" may mean the same bits.
at::Tensor random_delta(std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_int_distribution<int> whole(-1000, 1000);
  auto delta = at::empty({kSize});
  for (std::int64_t i = 0; i < kSize; ++i)
    delta.mutable_data_ptr<float>()[i] = static_cast<float>(whole(engine)) / 1024;
  return delta;
}

struct Node {
  Largest largest;
  CodecChain codecs{{&largest}};
  Instance<Privacy> privacy;
  NoNoise noise;
  TensorStore memory;

  at::Tensor send(const WorkOrder& order, at::Tensor delta, double decay = 1) {  // what the coordinator decodes
    ErrorFeedback feedback{memory, decay};
    const auto update = encode_update(order, {{std::move(delta)}}, {codecs, privacy, noise, &feedback}, {1, 2});
    std::string bytes;
    update.stream([&](std::span<const std::byte> part) {
      bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
    });
    AlignedBytes aligned(bytes.size());
    aligned.append(std::as_bytes(std::span(bytes)));
    const PacketView view(aligned.bytes());
    return codecs
        .decode(view, view.find(kAdapterChannel)->entries[0].code, {"w", DType::f32, {kSize}},
                tensor_seed(1, kAdapterChannel, 0))
        .clone();
  }
};

}  // namespace

TEST_CASE("what was sent and what is remembered add up to what was learnt, bit for bit, aborted rounds and all") {
  Node node;
  TemporaryDirectory folder;
  const auto file = folder.path() / "state";
  auto learnt = at::zeros({kSize}), sent = at::zeros({kSize});
  std::size_t aborted = 0;
  for (std::uint64_t round = 1; round <= 24; ++round) {
    // As a node does it: the memory of the last applied round is read, the new one is pending until the round is settled.
    node.memory.clear();
    if (std::filesystem::exists(file)) fold::ComponentStates::read(file).load("error_feedback", node.memory);
    const auto delta = random_delta(round);
    const auto decoded = node.send(order_of(), delta.clone());
    if (round % 5 == 0) {  // discarded: the coordinator has not applied it, so the pending memory goes too
      ++aborted;
      continue;
    }
    learnt.add_(delta);
    sent.add_(decoded);
    fold::ComponentStates states;
    states.save("error_feedback", node.memory);
    states.write(file, Durability::Process);
    const auto kept = node.memory.find("adapter/w", {kSize});
    REQUIRE(kept.defined());
    CHECK(sent.add(kept).equal(learnt));
  }
  CHECK(aborted == 4);
  CHECK(sent.ne(0).sum().item<std::int64_t>() > kSize / 2);  // without memory only ever the largest would be seen
}

TEST_CASE("the memory is of what the clip cut off as well") {
  Node node;
  auto order = order_of();
  order.clip_bound = 1;
  const auto delta = at::full({kSize}, 1.0f);  // norm 8
  const auto decoded = node.send(order, delta.clone());
  CHECK(decoded.norm().item<double>() <= 1);
  CHECK(node.memory.find("adapter/w", {kSize}).equal(delta.sub(decoded)));
}

TEST_CASE("a decay keeps that share of the memory") {
  Node node;
  const auto delta = random_delta(1);
  const auto decoded = node.send(order_of(), delta.clone(), 0.5);
  CHECK(node.memory.find("adapter/w", {kSize}).equal(delta.sub(decoded).mul(0.5)));
}

TEST_CASE("a tensor at rest keeps its memory, and one of another shape is forgotten") {
  Node node;
  node.memory.set("adapter/resting", at::full({2}, 4.0f));
  node.memory.set("adapter/w", at::full({3}, 4.0f));
  const auto delta = random_delta(1);
  const auto decoded = node.send(order_of(), delta.clone());
  CHECK(node.memory.find("adapter/resting", {2}).equal(at::full({2}, 4.0f)));
  CHECK(node.memory.find("adapter/w", {kSize}).equal(delta.sub(decoded)));
}

TEST_CASE("real channels are clipped as one vector, collected ones go as they are, and means come back as decoded") {
  auto order = order_of();
  order.exchange.up.push_back({"control", {{{"c", DType::f32, {4}}}, {{"", {0}}}}, Carry::Mean});
  order.exchange.up.push_back({"seeds", {{{"ids", DType::u8, {-1}}}, {{"", {0}}}}, Carry::Collect});
  order.clip_bound = 5;
  const CodecChain raw;
  const Instance<Privacy> privacy;
  NoNoise noise;
  const auto ids = at::full({7}, 3, at::TensorOptions().dtype(at::kByte));
  // Norms 8 and 6: together 10, twice the bound.
  const auto update =
      encode_update(order, {{at::full({kSize}, 1.0f)}, {at::full({4}, 3.0f)}, {ids}}, {raw, privacy, noise}, {1, 2});
  CHECK(update.norm_before_clip == Approx(10));
  CHECK(update.clip_factor == Approx(0.5));
  REQUIRE(update.decoded[1].size() == 1);
  CHECK(update.decoded[1][0].equal(at::full({4}, 1.5f)));
  CHECK(update.decoded[0].empty());

  TemporaryDirectory folder;
  const auto path = folder.path() / "upload";
  {
    std::ofstream out(path, std::ios::binary);
    update.stream([&](std::span<const std::byte> part) {
      out.write(reinterpret_cast<const char*>(part.data()), static_cast<std::streamsize>(part.size()));
    });
  }
  const auto verdict = screen_upload(path, order, raw, 1);
  CHECK(verdict.reason.empty());
  CHECK(verdict.norm == Approx(5));
  CHECK(std::filesystem::file_size(path) <= upload_bytes(order.exchange, raw, CodecChain::Size::Most));
  order.exchange.up.pop_back();
  CHECK_THAT(screen_upload(path, order, raw, 1).reason, Contains("3 channels"));
}

TEST_CASE("an update of another layout than the round's is never sent") {
  const CodecChain raw;
  const Instance<Privacy> privacy;
  NoNoise noise;
  CHECK_THROWS_WITH(encode_update(order_of(), {{at::zeros({3})}}, {raw, privacy, noise}, {}), Contains("'adapter'"));
  CHECK_THROWS_WITH(encode_update(order_of(), {}, {raw, privacy, noise}, {}), Contains("channels"));
}

namespace {

Instance<Compressor> codec_of(std::unique_ptr<Compressor> codec) {
  return owned<Compressor>(std::move(codec), "compressor broken 0.1.0");
}
struct Throws final : Stateless<Compressor> {  // in encode, or where it finds something to decode
  explicit Throws(bool at_once) : up(at_once) {}
  SizePlan plan(const TensorSpec& in) const override { return {{in}, 0, 0}; }
  Encoded encode(const at::Tensor& in, Seeds) const override {
    if (up) throw std::runtime_error("the moon is full");
    return {{in}, {}};
  }
  at::Tensor decode(const Encoded&, const TensorSpec&, std::uint64_t) const override {
    throw std::runtime_error("the moon is full");
  }
  bool up;
};

}  // namespace

TEST_CASE("what a codec or a trainer did wrong is told with component, version, round, node and tensor") {
  NoNoise noise;
  const Instance<Privacy> privacy;
  const CodecChain raw;
  const auto order = order_of();
  const auto sent = [&](const CodecChain& codecs, at::Tensor delta) {
    const NodeStages stages{codecs, privacy, noise, nullptr, NodeId{0xab}, "trainer wild 0.2.0"};
    return encode_update(order, {{std::move(delta)}}, stages, {1, 2});
  };
  const GuardedCodec up(codec_of(std::make_unique<Throws>(true))), down(codec_of(std::make_unique<Throws>(false)));
  const CodecChain fails_up({up.codec()}, {&up}), fails_down({down.codec()}, {&down});
  const std::string where = "round 3, node 00000000000000ab, tensor w: ";
  CHECK_THROWS_WITH(sent(fails_up, at::zeros({kSize})),
                    "compressor broken 0.1.0 failed in encode, " + where + "the moon is full");
  CHECK_THROWS_WITH(sent(raw, at::full({kSize}, std::numeric_limits<float>::infinity())),
                    Contains("trainer wild 0.2.0 failed in train, " + where + "training made w not finite"));
  CHECK_THROWS_WITH(sent(raw, at::zeros({7})), Contains("trainer wild 0.2.0 failed in train, " + where));

  const TemporaryDirectory folder;
  const auto path = folder.path() / "upload";
  std::ofstream file(path, std::ios::binary);
  sent(fails_down, at::zeros({kSize})).stream([&](std::span<const std::byte> bytes) {
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  });
  file.close();
  CHECK(screen_upload(path, order, fails_down, 1, NodeId{0xab}).reason ==
        "the upload cannot be used: compressor broken 0.1.0 failed in decode, " + where + "the moon is full");
  CHECK_THAT(screen_upload(path, order, fails_down, 1).reason, Contains("round 3, tensor w"));  // nodes are not named
}

TEST_CASE("a codec's guard costs far less than a microsecond, also while it is watched") {
  CallWatch watch({});
  auto shared = std::make_shared<Throws>(true);
  static const HansaComponent component{};
  auto* codec = shared.get();
  const GuardedCodec guarded(
      Instance<Compressor>(codec, Destroyer(std::move(shared), component, "compressor broken 0.1.0", &watch)));
  constexpr int kCalls = 200'000;
  std::uint64_t calls = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) guarded.call({.doing = "encode", .round = 1, .tensor = "t"}, [&] { ++calls; });
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  CHECK(calls == kCalls);
  CAPTURE(took.count() / kCalls);
  CHECK(took.count() / kCalls < 1);
}
