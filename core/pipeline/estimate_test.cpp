// A pipeline so small that every figure can be worked out by hand; the numbers below say how.
#include "pipeline/estimate.hpp"

#include <ATen/core/Tensor.h>

#include "owned_instance.hpp"
#include "test.hpp"

namespace hansa::pipeline {
namespace {

constexpr std::uint64_t kKB = 1024, kMB = 1024 * kKB;

class PlainMean : public Stateless<Aggregator> {
 public:
  std::uint64_t workspace(const Layout&, const Group&, std::size_t) const override { return 1000; }
  void reduce(const Updates&, Results&) override {}
};
class FirstOnly final : public PlainMean {  // the second tensor rests, or never leaves the node
 public:
  explicit FirstOnly(Role second) : second_(second) {}
  Exchange exchange(const Layout&, const RoundPlan&, const NodeFacts&) const override {
    return {"", {Role::Shared, second_}, {}, {}};
  }

 private:
  Role second_;
};
class OneMoment final : public Stateless<ServerOptimizer> {
 public:
  std::vector<TensorSpec> state(const TensorSpec& p) const override { return {{"m", DType::f32, p.shape}}; }
  void step(std::string_view, Index, at::Tensor&, const at::Tensor&, std::span<at::Tensor>) override {}
};
class Idle final : public Stateless<Trainer> {
 public:
  std::uint64_t steps(std::uint64_t) const override { return 1; }
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override { return {}; }
};
class Coins final : public Stateless<Selector> {  // rate 1: everybody
 public:
  explicit Coins(double rate) : rate_(rate) {}
  double expected_cohort(std::size_t population) const override { return rate_ * static_cast<double>(population); }
  double sampling_rate(std::size_t) const override { return rate_; }
  std::vector<NodeId> choose(std::span<const NodeFacts>, DrawRng&) override { return {}; }

 private:
  double rate_;
};
class Patient final : public Stateless<RoundPolicy> {
 public:
  Next decide(const RoundStatus&) override { return Next::Wait; }
  double deadline_seconds() const override { return 1; }
};
class Bytes final : public Stateless<Compressor> {  // one byte for each number, and a header of four
 public:
  SizePlan plan(const TensorSpec& in) const override {
    const auto count = static_cast<std::uint64_t>(in.elements());
    return {{{"", DType::i8, {in.elements()}}}, count + 4, count + 4};
  }
  Encoded encode(const at::Tensor&, Seeds) const override { return {}; }
  at::Tensor decode(const Encoded&, const TensorSpec&, std::uint64_t) const override { return {}; }
};

// A linear layer 8 -> 4 with bias as base; w [4, 8] and b [3] train, 140 bytes; two nodes, three rounds, one codec.
struct Tiny {
  Stages stages;
  config::RunSpec spec;
  Shape shape;
  Tiny() {
    stages.trainer = owned<Trainer>(std::make_unique<Idle>());
    stages.aggregator = owned<Aggregator>(std::make_unique<PlainMean>());
    stages.server_optimizer = owned<ServerOptimizer>(std::make_unique<OneMoment>());
    stages.selector = owned<Selector>(std::make_unique<Coins>(1));
    stages.round_policy = owned<RoundPolicy>(std::make_unique<Patient>());
    stages.codec_instances.stages.push_back(
        std::make_unique<const GuardedCodec>(owned<Compressor>(std::make_unique<Bytes>())));
    stages.codec_instances.chain = stages.codec_instances.first(1);
    spec.codecs.push_back({.kind = "compressor", .use = "bytes"});
    spec.run.rounds = 3;
    spec.nodes = {{.name = "a"}, {.name = "b"}};
    shape.modules = {{"layer", Module::Kind::Linear, 8, 4, true, false}};
    shape.trainable.tensors = {{"w", DType::f32, {4, 8}}, {"b", DType::f32, {3}}};
    shape.trainable.groups = {{"", {0}}, {"", {1}}};
    shape.layouts[0] = shape.trainable;
  }
  CostEstimate cost() const { return estimate(spec, shape, stages); }
};

// Index of a packet: 4 + meta, 4, for a channel 8 + its name, for a tensor 4 + its name + 4 + 8 for each extent, and 16 for
// raw bytes, or 8 + the header for a stage. Head of 64, then leaves at multiples of 64.
constexpr std::uint64_t kRaw = 332;            // 4 + 4 + 15 + 41 + 33 = 97 -> 192; w to 320, b to 332
constexpr std::uint64_t kCoded = 323;          // 4 + 4 + 15 + 65 + 57 = 145 -> 256; w to 288, b from 320 to 323
constexpr std::uint64_t kMost = kCoded + 192;  // two leaves and the index
constexpr std::uint64_t kVersion = 396;        // 4 + 71 + 4 + 15 + 41 + 33 = 168 -> 256; w to 384, b to 396
constexpr std::uint64_t kState = 332;          // 4 + 4 + 17 + 43 + 35 = 103 -> 192; w/m to 320, b/m to 332
constexpr std::uint64_t kBase = (32 + 4) * 4, kAdapter = 140, kNodeWork = 80 * kMB;
constexpr std::uint64_t kNode = kBase + 5 * kAdapter + kMost + kNodeWork;  // value, gradient, two moments, the change

}  // namespace

TEST_CASE("what is sent is whole packets, before and after each stage") {
  const auto cost = Tiny().cost();
  REQUIRE(cost.up.size() == 2);
  CHECK(cost.up[0].stage == "delta");
  CHECK(cost.up[0].typical == kRaw);
  CHECK(cost.up[0].most == kRaw);
  CHECK(cost.up[1].stage == "bytes");
  CHECK(cost.up[1].typical == kCoded);
  CHECK(cost.up[1].most == kMost);
  CHECK(cost.down_typical == kVersion);
  CHECK(cost.down_most == kVersion);
  CHECK(cost.parameters == 35);
  CHECK(cost.base_parameters == 36);
}

TEST_CASE("coordinator, node and a machine with all of them: memory and disk worked out by hand") {
  const auto cost = Tiny().cost();
  CHECK(cost.node_memory == kNode);
  CHECK(cost.node_disk == kVersion);
  // The rule's workspace, w with its change and moment, two chunks and an index of 256 for each of two clients.
  CHECK(cost.coordinator_memory == 1000 + 3 * 128 + 2 * (2 * kMB + 8 * 256) + 32 * kMB);
  CHECK(cost.first_version_memory == kBase + kAdapter + kNodeWork);
  const auto records = 64 * kKB + 2 * (8 + 1) * kKB + 3 * (2 + 2 * 2) * kKB;
  const auto disk =
      3 * (kVersion + kState + 4 * kKB) + 2 * kMost + records;  // two versions and the next; four components
  CHECK(cost.coordinator_disk == disk);
  CHECK(cost.run_processes == 4);
  CHECK(cost.run_memory == cost.coordinator_memory + 2 * kNode);
  CHECK(cost.run_disk == disk + 2 * kVersion + kAdapter + 3 * kKB);  // the exported adapter: two tensors and a head

  Tiny tiny;
  tiny.spec.simulation.emplace();
  tiny.spec.report.local_only = true;
  const auto simulated = tiny.cost();
  CHECK(simulated.run_processes == 1);
  CHECK(simulated.run_memory == cost.coordinator_memory - 4 * kMB + kNode);  // no chunks: nothing goes over a wire
  CHECK(simulated.run_disk == disk + 3 * (kAdapter + 3 * kKB));
}

TEST_CASE("a base is counted as it is held: half precision, random weights twice, quantised with the largest in fp32") {
  Tiny tiny;
  const auto base = [&] { return tiny.cost().node_memory - (kNode - kBase); };
  tiny.spec.model_host.compute = "bf16";
  CHECK(base() == 36 * 2);
  tiny.spec.model_host.initialise = true;
  CHECK(base() == 36 * 2 + 36 * 4);
  tiny.spec.model_host.base_dtype = BaseDtype::Nf4;
  CHECK(base() == 16 + 1 + 2 * 4 + 4 * 2 + 32 * 4);  // codes, a block's scale, its span's, bias; what it is made from
  tiny.spec.model_host.base_dtype = BaseDtype::Int8;
  CHECK(base() == 32 + 4 * 4 + 4 * 2 + 32 * 4);
  // Random weights are made in fp32: an embedding is larger then than what is quantised, and a checkpoint's is not.
  tiny.shape.modules.push_back({"embedding", Module::Kind::Embedding, 5, 8, false, false});
  CHECK(base() == 32 + 4 * 4 + 4 * 2 + 40 * 2 + 40 * 4);
  tiny.spec.model_host.initialise = false;
  CHECK(base() == 32 + 4 * 4 + 4 * 2 + 40 * 2 + 32 * 4);
}

TEST_CASE("what a node keeps between rounds stands there twice, and in its memory too") {
  Tiny tiny;
  tiny.spec.error_feedback.emplace();
  const auto memory = 2 * (kAdapter + 2 * kKB);
  CHECK(tiny.cost().node_disk == kVersion + memory);
  CHECK(tiny.cost().node_memory == kNode + memory);
  tiny.spec.error_feedback.reset();
  tiny.stages.aggregator = owned<Aggregator>(std::make_unique<FirstOnly>(Role::Personal));
  // 4 + 71 + 4 + 15 + 41 = 135 -> 256; w to 384, and b stays here.
  CHECK(tiny.cost().node_disk == 384 + 2 * (12 + kKB));
}

TEST_CASE("where one half moves, a part of the version is what a node fetches, and lies there beside it") {
  Tiny tiny;
  const auto whole = tiny.cost();
  tiny.stages.aggregator = owned<Aggregator>(std::make_unique<FirstOnly>(Role::Frozen));
  const auto cost = tiny.cost();
  CHECK(cost.down_typical == 384);  // 4 + 80 + 4 + 15 + 41 = 144 -> 256; w to 384
  CHECK(cost.down_most == kVersion);
  CHECK(cost.node_disk == kVersion + 3 * 384);
  // With each of three versions; the uploads have one tensor: 4 + 4 + 15 + 65 = 88 -> 192; w to 224.
  CHECK(cost.coordinator_disk == whole.coordinator_disk + 3 * 384 - 2 * kMost + 2 * (224 + 128));
}

TEST_CASE("versions encoded for the way down stand beside the plain ones") {
  Tiny tiny;
  const auto plain = tiny.cost();
  tiny.stages.downlink_instances.stages.push_back(
      std::make_unique<const GuardedCodec>(owned<Compressor>(std::make_unique<Bytes>())));
  tiny.stages.downlink_instances.chain = tiny.stages.downlink_instances.first(1);
  const auto cost = tiny.cost();
  CHECK(cost.down_most == 387);  // 4 + 71 + 4 + 15 + 65 + 57 = 216 -> 320; w to 352, b from 384 to 387
  CHECK(cost.node_disk == 387);
  CHECK(cost.coordinator_disk == plain.coordinator_disk + 3 * 387);
}

TEST_CASE("cohorts that are drawn may be larger than expected, never larger than all") {
  Tiny tiny;
  tiny.spec.nodes.resize(100);
  for (std::size_t i = 0; i < 100; ++i) tiny.spec.nodes[i].name = std::to_string(i);
  tiny.stages.selector = owned<Selector>(std::make_unique<Coins>(0.2));
  CHECK(tiny.cost().cohort == Approx(20));
  CHECK(tiny.cost().most_cohort == 36);  // 20 + 4 · sqrt(100 · 0.2 · 0.8)
  tiny.stages.selector = owned<Selector>(std::make_unique<Coins>(0.99));
  CHECK(tiny.cost().most_cohort == 100);
}

}  // namespace hansa::pipeline
