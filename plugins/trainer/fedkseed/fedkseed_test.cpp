#include <cmath>
#include <cstring>
#include <memory>
#include <random>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Half.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "../real_parts.hpp"
#include "fedkseed_test_support.hpp"

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::fedkseed;
using namespace hansa::fedkseed::tests;
using Catch::Matchers::Contains;

TEST_CASE("a federation of unlike silos learns by seeds and scalars alone, and settles near their optimum") {
  auto params = kSmall;
  params.seeds = 512;
  params.learning_rate = 4e-3;
  auto nodes = some_nodes(params);
  Pool pool({512});
  std::vector<Download> log;
  // The weights 1, 2 and 3 of the centres 1, 0.8 and 1.1.
  const auto distance = [&] {
    double square = 0;
    for (const auto& tensor : nodes[0]->adapter.tensors) square += (tensor - 5.9 / 6).square().sum().item<double>();
    return std::sqrt(square);
  };
  nodes[0]->load(log);
  const double before = distance();
  for (Epoch epoch = 1; epoch <= 120; ++epoch) log.push_back(play(nodes, pool, log, epoch, 512));
  nodes[0]->load(log);
  CHECK(distance() < 0.1 * before);
}

TEST_CASE("present, late, restarted, compacted and the coordinator's own: all rebuild the same bits") {
  auto nodes = some_nodes(kSmall);
  Pool pool({64});
  std::vector<Download> log;
  Node late(kSmall), restarted(kSmall), compacted(kSmall), coordinator(kSmall), behind(kSmall);
  for (Epoch epoch = 1; epoch <= 3; ++epoch) log.push_back(play(nodes, pool, log, epoch, 64));
  late.load(log);
  coordinator.load(log);
  for (Epoch epoch = 4; epoch <= 6; ++epoch) log.push_back(play(nodes, pool, log, epoch, 64));
  nodes[0]->load(log);
  CHECK_FALSE(same(late.adapter, nodes[0]->adapter));
  late.load(log);  // was away for three rounds
  restarted.load(log);
  for (std::size_t i = 4; i <= 6; ++i) coordinator.load(std::span(log).first(i));
  for (std::size_t upto : {1u, 4u, 6u}) {
    auto one = pool.compact("accumulators", std::span(log).first(upto));
    REQUIRE(one);
    std::vector<Download> shorter{{"accumulators", upto, true, std::move(*one)}};
    shorter.insert(shorter.end(), log.begin() + static_cast<std::ptrdiff_t>(upto), log.end());
    Node node(kSmall);
    node.load(shorter);
    CHECK(same(node.adapter, nodes[0]->adapter));
    // Compacting what was compacted says the same as well.
    Node again(kSmall);
    again.load(std::vector<Download>{{"accumulators", 6, true, *pool.compact("accumulators", shorter)}});
    CHECK(same(again.adapter, nodes[0]->adapter));
  }
  CHECK(same(late.adapter, nodes[0]->adapter));
  CHECK(same(restarted.adapter, nodes[0]->adapter));
  CHECK(same(coordinator.adapter, nodes[0]->adapter));
  CHECK(same(nodes[1]->adapter, nodes[1]->adapter));
  // Its own training does not show after the next load, whether its round counted or not.
  Tokens data;
  nodes[1]->load(log);
  nodes[1]->trainer.train(nodes[1]->model, nodes[1]->adapter, data, context_for(1, 64));
  CHECK_FALSE(same(nodes[1]->adapter, nodes[0]->adapter));
  nodes[1]->load(log);
  CHECK(same(nodes[1]->adapter, nodes[0]->adapter));
}

TEST_CASE("every set of instructions rebuilds and trains with the same bits") {
  auto nodes = some_nodes(kSmall);
  Pool pool({64});
  std::vector<Download> log;
  for (Epoch epoch = 1; epoch <= 3; ++epoch) log.push_back(play(nodes, pool, log, epoch, 64));
  nodes[0]->load(log);
  Tokens data;
  std::vector<at::Tensor> first;
  for (auto [choice, with] :
       {std::pair{Choice::Scalar, seeds::Instructions::Scalar}, std::pair{Choice::Avx2, seeds::Instructions::Avx2},
        std::pair{Choice::Avx512, seeds::Instructions::Avx512}}) {
    auto params = kSmall;
    params.instructions = choice;
    if (!seeds::available(with)) {
      CHECK_THROWS_WITH(Node(params), Contains("this machine has no"));
      continue;
    }
    Node node(params, 1);
    node.load(log);
    CHECK(same(node.adapter, nodes[0]->adapter));
    node.trainer.train(node.model, node.adapter, data, context_for(5, 64));
    const auto sent = node.trainer.outgoing("seeds");
    if (first.empty()) first = sent;
    CHECK(at::equal(sent[0], first[0]));
    CHECK(at::equal(sent[1], first[1]));
  }
}

TEST_CASE("the rebuild is base less rate times the sum over the seeds, and the decay counts once") {
  auto params = kSmall;
  params.weight_decay = 3;
  params.family = 7;
  Node node(params);
  auto entry = seeds::zero_accumulators(64);
  entry.mutable_data_ptr<c10::Half>()[3] = 12;
  entry.mutable_data_ptr<c10::Half>()[60] = -20.5;
  const std::vector<Download> log{{"accumulators", 4, false, {{"accumulators", entry}}}};
  node.load(log);
  for (std::uint32_t t : {0u, 1u}) {
    const auto count = static_cast<std::size_t>(node.created[t].numel());
    std::vector<float> z3(count), z60(count);
    const seeds::Term three{3, 1}, sixty{60, 1};
    seeds::add(seeds::Instructions::Scalar, {&three, 1}, {7, t, 0}, z3);
    seeds::add(seeds::Instructions::Scalar, {&sixty, 1}, {7, t, 0}, z60);
    const auto base = node.created[t].contiguous(), got = node.adapter.tensors[t].contiguous();
    for (std::size_t i = 0; i < count; ++i) {
      const double want =
          (1 - 2e-3 * 3) * static_cast<double>(base.data_ptr<float>()[i]) - 2e-3 * (12.0 * z3[i] - 20.5 * z60[i]);
      CHECK(got.data_ptr<float>()[i] == Approx(want).margin(1e-6));
    }
  }
  // Before any entry the base stands, decayed as well: later rounds start from nothing else.
  Node fresh(params);
  fresh.load({});
  CHECK(fresh.adapter.tensors[1][0].item<double>() == Approx(0.25 * (1 - 2e-3 * 3)));
}

TEST_CASE("a step's scalar is the slope along its direction, and the sums go up by seed") {
  const Params params{.seeds = 4, .steps = 9, .learning_rate = 0, .epsilon = 1e-2};
  Node node(params, 1);
  node.load({});
  Tokens data;
  const auto result = node.trainer.train(node.model, node.adapter, data, context_for(11, 4));
  CHECK(result.steps == 9);
  CHECK(result.tokens == 27);
  const auto sent = node.trainer.outgoing("seeds");
  const auto got = seeds::decode(sent[0], sent[1], 4);
  double times = 0;
  for (const auto& [seed, scalar] : got) {  // at rate 0 each visit of a seed adds the same slope: gradient · z
    double slope = 0;
    for (std::uint32_t t : {0u, 1u}) {
      const auto base = node.created[t].contiguous();
      std::vector<float> z(static_cast<std::size_t>(base.numel()));
      const seeds::Term term{seed, 1};
      seeds::add(seeds::Instructions::Scalar, {&term, 1}, {0, t, 0}, z);
      for (std::size_t i = 0; i < z.size(); ++i)
        slope += (static_cast<double>(base.data_ptr<float>()[i]) - 1) * static_cast<double>(z[i]);
    }
    const double visits = std::round(scalar / slope);
    CHECK(scalar == Approx(visits * slope).epsilon(5e-3));
    times += visits;
  }
  CHECK(times == 9);
}

TEST_CASE("the pool's entry is the weighted mean, seed by seed, whatever the seeds of each node") {
  std::mt19937 engine(4);
  std::normal_distribution<double> normal;
  Pool pool({4096});
  pool.begin({});
  std::vector<double> want(4096, 0);
  double weights = 0;
  for (NodeId node = 0; node < 5; ++node) {
    const double weight = 0.5 + static_cast<double>(node);
    seeds::Scalars scalars;
    for (int step = 0; step < 200; ++step) scalars[engine() % 4096] += normal(engine);
    const auto sent = seeds::encode(scalars);
    for (const auto& [seed, scalar] : seeds::decode(sent[0], sent[1], 4096)) want[seed] += weight * scalar;
    weights += weight;
    pool.collect({.node = node, .weight = weight}, "seeds", sent);
  }
  testing::FakeResults results;
  pool.finish(results);
  const auto entry = results.appended("accumulators", "accumulators");
  REQUIRE(entry.numel() == 4096);
  CHECK(entry.scalar_type() == at::kHalf);
  for (std::size_t k = 0; k < want.size(); ++k)
    REQUIRE(static_cast<double>(static_cast<float>(entry.const_data_ptr<c10::Half>()[k])) ==
            Approx(want[k] / weights).epsilon(6e-4).margin(1e-7));
  // A round that nobody's seeds reached adds nothing to the log.
  pool.begin({});
  testing::FakeResults none;
  CHECK(pool.finish(none).empty());
  CHECK_THROWS(none.appended("accumulators", "accumulators"));
}

TEST_CASE(
    "accumulators that leave half precision end the round with their seed's number, before anything is announced") {
  Pool pool({8});
  const auto round = [](Pool& rule, double scalar) {
    rule.begin({});
    rule.collect({.weight = 1}, "seeds", seeds::encode({{5, scalar}}));
    testing::FakeResults results;
    rule.finish(results);
  };
  round(pool, 40000);
  CHECK_THROWS_WITH(round(pool, 40000), Contains("accumulator of seed 5 is 80000"));
  round(pool, -40000);  // what failed left nothing behind
  round(pool, 40000);

  struct Memory : StateWriter, StateReader {
    void put(std::string_view, const at::Tensor& value) override { held = value.clone(); }
    void put(std::string_view, std::string_view) override {}
    bool has(std::string_view) const override { return true; }
    at::Tensor tensor(std::string_view) const override { return held; }
    std::string bytes(std::string_view) const override { return {}; }
    at::Tensor held;
  } memory;
  pool.save(memory);
  Pool resumed({8}), other({9});
  resumed.load(memory, 1);
  CHECK_THROWS_WITH(round(resumed, 40000), Contains("seed 5"));
  CHECK_THROWS_WITH(other.load(memory, 1), Contains("the same `seeds`"));
}

TEST_CASE("the exchange moves no tensor: all derived, seeds up, a log of accumulators down") {
  const auto layout = Whole().layout({}, 0);
  const auto exchange = Pool({4096}).exchange(layout, {}, {});
  CHECK((exchange.roles == std::vector<Role>(2, Role::Derived)));
  CHECK(exchange.up.empty());  // the trainer names its own
  REQUIRE(exchange.down.size() == 1);
  CHECK(exchange.down[0].keep == Keep::Log);
  CHECK(exchange.down[0].for_trainer);
  CHECK(exchange.down[0].layout.tensors[0].elements() * 2 == 8192);
  testing::QuietHost host;
  const auto up = FedKSeed({}, host).up(layout);
  REQUIRE(up.size() == 1);
  CHECK(up[0].carry == Carry::Collect);
  CHECK(Pool({4096}).workspace(layout, layout.groups[0], 50) == 0);
}

TEST_CASE("what does not fit is refused with the way out") {
  Tokens data;
  Node node(kSmall);
  node.load({});
  const auto train = [&](const TrainContext& context) {
    return node.trainer.train(node.model, node.adapter, data, context);
  };
  auto shared = context_for(1, 64);
  shared.exchange.roles = {Role::Shared, Role::Shared};
  CHECK_THROWS_WITH(train(shared), Contains("[aggregator] use = \"fedkseed\""));
  CHECK_THROWS_WITH(train(context_for(1, 65)), Contains("65 candidate seeds and the trainer 64"));
  CHECK_THROWS_WITH(train(context_for(1, 64, 3)), Contains("adapter `full`"));
  const auto receive = [&](Download download) { node.trainer.receive(node.model, node.adapter, download); };
  CHECK_THROWS_WITH(receive({"residual", 1, true, {}}), Contains("'residual'"));
  CHECK_THROWS_WITH(receive({"accumulators", 3, false, {{"accumulators", seeds::zero_accumulators(64)}}}),
                    Contains("before version 3 are missing"));
  CHECK_THROWS_WITH(receive({"accumulators", 3, true, {{"accumulators", seeds::zero_accumulators(32)}}}),
                    Contains("the same `seeds`"));
  node.model.factor = NAN;
  CHECK_THROWS_WITH(train(context_for(1, 64)), Contains("training diverged"));
  node.model.factor = 1e9;
  const auto steep = [&] {
    train(context_for(1, 64));
    node.trainer.outgoing("seeds");
  };
  CHECK_THROWS(steep());
  node.model.factor = 1;
  node.load({});
  data.ends = true;
  CHECK_THROWS_WITH(train(context_for(1, 64)), Contains("data source ended"));
  data.ends = false;
  node.host.cancel = true;
  CHECK_THROWS_WITH(train(context_for(1, 64)), Contains("cancelled"));
  Pool pool({64});
  pool.begin({});
  CHECK_THROWS_WITH(pool.collect({}, "adapter", {}), Contains("'adapter'"));
  testing::FakeUpdates updates({"", {0}}, {{"w.weight", DType::f32, {2}}});
  testing::FakeResults results;
  CHECK_THROWS_WITH(pool.reduce(updates, results), Contains("'w.weight'"));
}

TEST_CASE("a silo that trains alone keeps what it learned in its weights") {
  Node node({.seeds = 64, .steps = 400, .learning_rate = 2e-3, .epsilon = 1e-3}, 1);
  Tokens data;
  TrainContext context;
  context.exchange.roles = {Role::Shared, Role::Shared};
  const auto result = node.trainer.train(node.model, node.adapter, data, context);
  const auto metric = [&](std::size_t i) { return result.metrics.at(i).second; };
  CHECK(result.metrics[1].first == "loss_first");
  CHECK(metric(2) < 0.7 * metric(1));
}

TEST_CASE("a real model of two nodes learns through the real adapter, and both rebuild the same bits") {
  const Params params{.seeds = 256, .steps = 20, .batch = 8, .learning_rate = 1e-3, .epsilon = 1e-3};
  trainer_tests::RealParts one("full"), two("full");
  testing::QuietHost host;
  FedKSeed first(params, host), second(params, host);
  Pool pool({256});
  Epoch received = 0;
  std::vector<double> losses;
  for (Epoch epoch = 1; epoch <= 12; ++epoch) {
    pool.begin({});
    double loss = 0;
    for (auto [parts, trainer, step] : {std::tuple{&one, &first, 1}, std::tuple{&two, &second, 1}}) {
      trainer_tests::Counting data(step);
      data.shuffle(epoch);
      const auto result =
          trainer->train(*parts->model, *parts->adapter, data,
                         context_for(epoch * 2 + (trainer == &first), 256, parts->layout.tensors.size()));
      loss += result.metrics[0].second / 2;
      pool.collect({.weight = 1}, "seeds", trainer->outgoing("seeds"));
    }
    losses.push_back(loss);
    testing::FakeResults results;
    pool.finish(results);
    auto entry = entry_of(results, epoch);
    entry.anew = received == 0;
    received = epoch;
    for (auto [parts, trainer] : {std::pair{&one, &first}, std::pair{&two, &second}}) {
      const at::NoGradGuard no_grad;
      for (Index i = 0; i < parts->created.size(); ++i) parts->adapter->parameter(i).copy_(parts->created[i]);
      trainer->receive(*parts->model, *parts->adapter, entry);
      trainer->derive(*parts->model, *parts->adapter);
    }
    for (Index i = 0; i < one.created.size(); ++i)
      REQUIRE(at::equal(one.adapter->parameter(i), two.adapter->parameter(i)));
  }
  INFO("first " << losses.front() << ", last " << losses.back());
  CHECK(losses.back() < losses.front() - 0.3);
}
