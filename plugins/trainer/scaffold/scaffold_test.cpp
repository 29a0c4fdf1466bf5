#include "scaffold.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <hansa/layouts.hpp>
#include <hansa/testing/bare_model.hpp>

#include "../real_parts.hpp"

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::scaffold;
using Catch::Matchers::Contains;

namespace {

class Vectors : public Stateless<Adapter> {  // "a" [3], "b" [2]
 public:
  Layout layout(std::span<const Module>, double) const override {
    return {{{"a", DType::f32, {3}}, {"b", DType::f32, {2}}}, {{"", {0}}, {"", {1}}}};
  }
  void create(const Model&, std::span<const Module>, double, std::uint64_t) override {}
  at::Tensor parameter(Index i) override { return parameters.at(i); }
  std::vector<Injection> injections() override { return {}; }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path&) const override {}
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const Model&, std::span<const Module>) override {}
  std::vector<at::Tensor> parameters = {at::zeros({3}).requires_grad_(true), at::zeros({2}).requires_grad_(true)};
};

struct Bowl {  // curvature/2 * (x - centre)^2 for each element
  double curvature, centre;
};
class Quadratic : public testing::BareModel {
 public:
  Quadratic(Bowl bowl, const Vectors& adapter) : bowl_(bowl), adapter_(adapter) {}
  at::Tensor loss(const Batch& batch) override {
    auto total = at::zeros({}, at::kFloat);
    for (const auto& parameter : adapter_.parameters) {
      const auto error = parameter - bowl_.centre;
      total = total + (error * error).sum() * (0.5 * bowl_.curvature * static_cast<double>(batch.counted));
    }
    return total;
  }

 private:
  Bowl bowl_;
  const Vectors& adapter_;
};
class Tokens : public Stateless<DataSource> {
 public:
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 8; }
  void shuffle(std::uint64_t) override {}
  void rewind() override {}
  std::optional<Batch> next(std::int64_t) override { return Batch{.counted = 7, .documents = 1}; }
};

class Memory : public StateWriter, public StateReader {
 public:
  void put(std::string_view key, const at::Tensor& value) override { tensors[std::string(key)] = value.clone(); }
  void put(std::string_view key, std::string_view value) override { texts[std::string(key)] = value; }
  bool has(std::string_view key) const override {
    return tensors.count(std::string(key)) + texts.count(std::string(key)) > 0;
  }
  at::Tensor tensor(std::string_view key) const override { return tensors.at(std::string(key)); }
  std::string bytes(std::string_view key) const override { return texts.at(std::string(key)); }
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> texts;
};

enum class Ending { Applied, Discarded };
const std::vector<Role> kAllShared{Role::Shared, Role::Shared};

// The host's part: the plain mean of the deltas, c moved by (1/N) times the sum over those who took part, and state that
// counts only when the round is applied. Every node is a new process in every round.
class Federation {
 public:
  Federation(Params params, std::vector<Bowl> bowls) : params_(params), bowls_(std::move(bowls)) {
    states_.resize(bowls_.size());
    const auto layout = Vectors().layout({}, 0);
    for (const auto& spec : layout.tensors) {
      weights.push_back(at::zeros(spec.shape));
      common.emplace_back(spec.name, at::zeros(spec.shape));
    }
  }
  std::function<at::Tensor(const at::Tensor&)> codec = [](const at::Tensor& sent) { return sent; };
  Round rounds = 0;  // planned

  void plain_round() {  // the same loop without the correction
    std::vector<std::size_t> all(bowls_.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    auto moved = zeros();
    ++round_;
    for (auto node : all) {
      Vectors adapter;
      set(adapter);
      Quadratic model(bowls_[node], adapter);
      Tokens data;
      train::run(params_, host_, model, adapter, data, context(kAllShared));
      collect(adapter, all.size(), moved);
    }
    apply(moved);
  }
  void play(const std::vector<std::size_t>& cohort, std::vector<Role> roles = kAllShared,
            Ending outcome = Ending::Applied) {
    auto moved = zeros(), control = zeros();
    std::map<std::size_t, Memory> pending;
    ++round_;
    const auto what = context(std::move(roles));
    for (auto node : cohort) {
      Vectors adapter;
      set(adapter);
      Quadratic model(bowls_[node], adapter);
      Tokens data;
      Scaffold trainer(params_, host_);
      if (!states_[node].texts.empty()) trainer.load(states_[node], 1);
      trainer.receive(model, adapter, {std::string(kControl), round_ - 1, true, common});
      trainer.train(model, adapter, data, what);
      collect(adapter, cohort.size(), moved);
      auto out = trainer.outgoing(kControl);
      REQUIRE(out.size() == common.size());
      for (auto& tensor : out) tensor = codec(tensor);
      trainer.sent(kControl, out);
      for (std::size_t i = 0; i < out.size(); ++i) control[i].add_(out[i].div(static_cast<double>(bowls_.size())));
      trainer.save(pending[node]);
    }
    if (outcome == Ending::Discarded) return;
    apply(moved);
    for (std::size_t i = 0; i < common.size(); ++i) common[i].second.add_(control[i]);
    for (auto& [node, state] : pending) states_[node] = std::move(state);
  }
  double optimum() const {
    double top = 0, bottom = 0;
    for (const auto& bowl : bowls_) top += bowl.curvature * bowl.centre, bottom += bowl.curvature;
    return top / bottom;
  }
  double error() const {  // largest distance from the optimum
    double most = 0;
    for (const auto& w : weights) most = std::max(most, (w - optimum()).abs().max().item<double>());
    return most;
  }
  double mean_differs() const {  // largest distance between c and the mean of the c_i
    double most = 0;
    for (const auto& [name, c] : common) {
      auto sum = at::zeros(c.sizes());
      for (const auto& state : states_)
        if (state.has("control." + name)) sum.add_(state.tensor("control." + name));
      most = std::max(most, (sum.div(static_cast<double>(bowls_.size())) - c).abs().max().item<double>());
    }
    return most;
  }
  const Memory& state(std::size_t node) const { return states_.at(node); }
  std::vector<at::Tensor> weights;
  NamedTensors common;

 private:
  std::vector<at::Tensor> zeros() const {
    std::vector<at::Tensor> all;
    for (const auto& w : weights) all.push_back(at::zeros(w.sizes()));
    return all;
  }
  void set(Vectors& adapter) const {
    at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < weights.size(); ++i) adapter.parameters[i].copy_(weights[i]);
  }
  void collect(const Vectors& adapter, std::size_t nodes, std::vector<at::Tensor>& moved) const {
    for (std::size_t i = 0; i < weights.size(); ++i)
      moved[i].add_((adapter.parameters[i].detach() - weights[i]).div(static_cast<double>(nodes)));
  }
  void apply(const std::vector<at::Tensor>& moved) {
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i].add_(moved[i]);
  }
  TrainContext context(std::vector<Role> roles) {
    const auto layout = Vectors().layout({}, 0);
    TrainContext made;
    made.plan.round = round_;
    made.rounds = rounds;
    const Scaffold trainer(params_, host_);
    made.exchange.up = trainer.up(layout);
    made.exchange.up.insert(made.exchange.up.begin(),
                            {std::string(kAdapterChannel), part_of(layout, roles, {Role::Shared})});
    made.exchange.down = trainer.down(layout);
    made.exchange.roles = std::move(roles);
    return made;
  }

  Params params_;
  std::vector<Bowl> bowls_;
  testing::QuietHost host_;
  std::vector<Memory> states_;
  Round round_ = 0;
};

const std::vector<Bowl> kTwo{{1, 0}, {10, 1}};
const std::vector<Bowl> kFive{{1, 0}, {8, 1}, {4, -2}, {2, 3}, {1, -1}};
constexpr Params kSgd{.steps = 20, .learning_rate = 0.02, .optimizer = train::Rule::Sgd, .max_grad_norm = 0};

std::vector<std::size_t> everyone(std::size_t count) {
  std::vector<std::size_t> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = i;
  return all;
}

}  // namespace

TEST_CASE("many steps of plain averaging settle beside the optimum of unlike silos; with the correction at it: SGD") {
  for (const auto& bowls : {kTwo, kFive}) {
    Federation plain(kSgd, bowls), corrected(kSgd, bowls);
    for (int round = 0; round < 120; ++round) {
      plain.plain_round();
      corrected.play(everyone(bowls.size()));
      REQUIRE(corrected.mean_differs() < 1e-5);
    }
    CHECK(plain.error() > 0.05);
    CHECK(corrected.error() < 1e-4);
    // At the optimum each c_i is the node's own gradient there, and their mean is zero.
    for (std::size_t node = 0; node < bowls.size(); ++node) {
      const double want = bowls[node].curvature * (corrected.optimum() - bowls[node].centre);
      CHECK(corrected.state(node).tensor("control.a")[1].item<double>() == Approx(want).margin(1e-3));
    }
    CHECK(corrected.common[0].second.abs().max().item<double>() < 1e-4);
  }
}

TEST_CASE("the same under AdamW, where the moved weights do not tell the gradient, and with a clip") {
  const Params adam{.steps = 25, .learning_rate = 0.03, .schedule = train::Shape::Linear, .max_grad_norm = 0};
  for (double clip : {0.0, 1.0}) {
    auto params = adam;
    params.max_grad_norm = clip;
    Federation plain(params, kTwo), corrected(params, kTwo);
    plain.rounds = corrected.rounds = 120;
    for (int round = 0; round < 120; ++round) {
      plain.plain_round();
      corrected.play(everyone(2));
      REQUIRE(corrected.mean_differs() < 1e-5);
    }
    CHECK(plain.error() > 0.1);
    CHECK(corrected.error() < 5e-3);
  }
}

TEST_CASE("with two of five nodes a round, c stays the mean of all five and the optimum is reached") {
  Federation federation(kSgd, kFive);
  std::uint64_t random = 7;
  for (int round = 0; round < 300; ++round) {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    const std::size_t first = (random >> 33) % 5, second = (first + 1 + (random >> 40) % 4) % 5;
    federation.play({std::min(first, second), std::max(first, second)});
    REQUIRE(federation.mean_differs() < 1e-5);
  }
  CHECK(federation.error() < 1e-3);
}

TEST_CASE("a discarded round leaves every control variate as it was") {
  Federation with(kSgd, kTwo), without(kSgd, kTwo);
  for (int round = 0; round < 10; ++round) {
    with.play({0, 1});
    without.play({0, 1});
    if (round % 3 == 1) with.play({0, 1}, kAllShared, Ending::Discarded);
  }
  CHECK(at::equal(with.weights[0], without.weights[0]));
  CHECK(at::equal(with.common[0].second, without.common[0].second));
  CHECK(at::equal(with.state(1).tensor("control.a"), without.state(1).tensor("control.a")));
}

TEST_CASE("behind a lossy codec c is still the mean of the control variates") {
  Federation federation(kSgd, kTwo);
  federation.codec = [](const at::Tensor& sent) { return sent.to(at::kBFloat16).to(at::kFloat).mul(0.9); };
  for (int round = 0; round < 60; ++round) {
    federation.play({0, 1});
    REQUIRE(federation.mean_differs() < 1e-5);
  }
  CHECK(federation.error() < 1e-2);
}

TEST_CASE("control variates of tensors at rest are untouched, those of personal tensors do not exist") {
  Federation federation(kSgd, kTwo);
  federation.play({0, 1});
  const auto before = federation.state(1).tensor("control.b").clone();
  const auto common = federation.common[1].second.clone();
  REQUIRE(before.abs().max().item<double>() > 0);
  federation.play({0, 1}, {Role::Shared, Role::Frozen});
  CHECK(at::equal(federation.state(1).tensor("control.b"), before));
  CHECK(at::equal(federation.common[1].second, common));
  Federation personal(kSgd, kTwo);
  for (int round = 0; round < 5; ++round) personal.play({0, 1}, {Role::Shared, Role::Personal});
  CHECK(personal.common[0].second.abs().max().item<double>() > 0);
  CHECK(personal.common[1].second.abs().max().item<double>() == 0);
}

TEST_CASE("the control channel is fp32, a mean, kept as the latest, and never taken for a pair of factors") {
  testing::QuietHost host;
  const Layout pairs{{{"q.lora_A", DType::f32, {2, 4}}, {"q.lora_B", DType::f32, {6, 2}}}, {{"lora", {0, 1}, 2}}};
  const auto up = Scaffold({}, host).up(pairs), down = Scaffold({}, host).down(pairs);
  REQUIRE(up.size() == 1);
  CHECK(up[0].name == "control");
  CHECK(up[0].carry == Carry::Mean);
  CHECK(down[0].keep == Keep::Latest);
  CHECK(down[0].for_trainer);
  CHECK((up[0].layout == down[0].layout));
  CHECK((up[0].layout.tensors == pairs.tensors));
  CHECK((up[0].layout.groups == std::vector<Group>{{"", {0}}, {"", {1}}}));
}

TEST_CASE("what does not fit is refused by name") {
  testing::QuietHost host;
  Vectors adapter;
  Quadratic model(kTwo[0], adapter);
  Tokens data;
  Scaffold trainer({.steps = 2}, host);
  CHECK_THROWS_WITH(trainer.receive(model, adapter, {"residual", 1, true, {}}), Contains("'residual'"));
  TrainContext context;
  context.exchange.roles = kAllShared;
  const auto layout = adapter.layout({}, 0);
  context.exchange.up = {trainer.up(layout)[0]};
  CHECK_THROWS_WITH(trainer.train(model, adapter, data, context), Contains("channel 'adapter'"));
  context.exchange.up.push_back({std::string(kAdapterChannel), layout});
  trainer.receive(model, adapter, {"control", 1, true, {{"a", at::ones({4})}}});
  CHECK_THROWS_WITH(trainer.train(model, adapter, data, context), Contains("control variate of 'a'"));
  trainer.receive(model, adapter, {"control", 1, true, {}});
  trainer.train(model, adapter, data, context);
  CHECK(trainer.outgoing("other").empty());
  CHECK_THROWS_WITH(trainer.sent("control", {}), Contains("0 control variates"));
  Memory empty;
  CHECK_THROWS_WITH(trainer.load(empty, 2), Contains("version 1"));
}

TEST_CASE("a silo that trains alone does what plain training does") {
  testing::QuietHost host;
  Vectors with, without;
  Quadratic model(kTwo[1], with), other(kTwo[1], without);
  Tokens data;
  TrainContext context;
  context.exchange.roles = kAllShared;
  Scaffold trainer(kSgd, host);
  trainer.train(model, with, data, context);
  train::run(kSgd, host, other, without, data, context);
  CHECK(at::equal(with.parameters[0], without.parameters[0]));
  CHECK(trainer.outgoing(kControl).empty());
}

TEST_CASE("a real model with a real adapter: two unlike silos learn, and c is the mean of their control variates") {
  const Params params{.steps = 10, .learning_rate = 0.01};
  trainer_tests::RealParts one("lora"), two("lora");
  testing::QuietHost host;
  Scaffold first(params, host), second(params, host);
  const std::array nodes{std::tuple{&one, &first, 1}, std::tuple{&two, &second, 5}};
  const auto& layout = one.layout;
  const std::size_t count = layout.tensors.size();
  std::vector<at::Tensor> weights;
  NamedTensors common;
  for (std::size_t i = 0; i < count; ++i) {
    weights.push_back(one.created[i].clone());
    common.emplace_back(layout.tensors[i].name, at::zeros(layout.tensors[i].shape));
  }
  std::vector<double> losses;
  for (Round round = 1; round <= 8; ++round) {
    std::vector<at::Tensor> next(count), control(count);
    double loss = 0;
    for (auto [parts, trainer, step] : nodes) {
      {
        at::NoGradGuard no_grad;
        for (Index i = 0; i < count; ++i) parts->adapter->parameter(i).copy_(weights[i]);
      }
      TrainContext context;
      context.seed = round;
      context.exchange.roles.assign(count, Role::Shared);
      context.exchange.up = {{std::string(kAdapterChannel), layout}, trainer->up(layout)[0]};
      trainer->receive(*parts->model, *parts->adapter, {"control", round, true, common});
      trainer_tests::Counting data(step);
      data.shuffle(round);
      loss += trainer->train(*parts->model, *parts->adapter, data, context).metrics[0].second / 2;
      const auto out = trainer->outgoing("control");
      trainer->sent("control", out);
      for (Index i = 0; i < count; ++i) {
        const auto half = parts->adapter->parameter(i).detach().div(2);
        next[i] = next[i].defined() ? next[i] + half : half;
        control[i] = control[i].defined() ? control[i] + out[i] / 2 : out[i] / 2;
      }
    }
    losses.push_back(loss);
    weights = next;
    for (std::size_t i = 0; i < count; ++i) common[i].second.add_(control[i]);
    Memory a, b;
    first.save(a);
    second.save(b);
    for (const auto& [name, c] : common) {
      const auto mean = (a.tensor("control." + name) + b.tensor("control." + name)) / 2;
      REQUIRE((mean - c).abs().max().item<double>() < 1e-6);
    }
  }
  INFO("first " << losses.front() << ", last " << losses.back());
  CHECK(losses.back() < losses.front() - 0.5);
}
