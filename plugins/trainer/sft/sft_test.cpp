#include "sft.hpp"

#include <cmath>
#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::sft;
using Catch::Matchers::Contains;

namespace {

// loss = sum over counted labels of (w - label)^2 / 2: gradients can be written down.
class Bowl : public testing::BareModel {
 public:
  explicit Bowl(at::Tensor w) : w_(std::move(w)) {}
  at::Tensor loss(const Batch& batch) override {
    auto error = w_ - batch.labels.to(at::kFloat);
    return (error * error).sum() * factor;
  }
  double factor = 0.5;

 private:
  at::Tensor w_;
};
class One : public Stateless<Adapter> {
 public:
  explicit One(double start) : w(at::full({}, start, at::kFloat).requires_grad_(true)) {}
  Layout layout(std::span<const Module>, double) const override { return {}; }
  void create(const Model&, std::span<const Module>, double, std::uint64_t) override {}
  at::Tensor parameter(Index i) override { return i == 0 ? w : frozen; }
  std::vector<Injection> injections() override { return {}; }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path&) const override {}
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const Model&, std::span<const Module>) override {}
  at::Tensor w, frozen = at::ones({2}).requires_grad_(true);
};
using Batches = std::vector<std::vector<double>>;
class Labels : public Stateless<DataSource> {  // batches of given labels, one after another, again and again
 public:
  explicit Labels(Batches batches) : batches_(std::move(batches)) {}
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 12; }
  void shuffle(std::uint64_t) override {}
  void rewind() override {}
  std::optional<Batch> next(std::int64_t) override {
    if (batches_.empty()) return std::nullopt;
    const auto& labels = batches_[given++ % batches_.size()];
    auto tensor = at::zeros({static_cast<std::int64_t>(labels.size())}, at::kDouble);
    for (std::size_t i = 0; i < labels.size(); ++i) tensor.data_ptr<double>()[i] = labels[i];
    return Batch{.labels = tensor, .counted = tensor.size(0), .documents = 3};
  }
  std::size_t given = 0;

 private:
  Batches batches_;
};

TrainContext one_round(Round round = 1, Round rounds = 1) {
  TrainContext context;
  context.plan.round = round;
  context.rounds = rounds;
  context.exchange.roles = {Role::Shared};
  return context;
}
double trained_to(Params params, Labels data, double start, TrainContext context = one_round()) {
  testing::QuietHost host;
  One adapter(start);
  Bowl model(adapter.w);
  Sft(params, host).train(model, adapter, data, context);
  return adapter.w.item<double>();
}

}  // namespace

TEST_CASE("sgd divides by the counted tokens of the whole accumulation") {
  // Two micro-batches with 1 and 3 labels: the gradient is w minus the mean of all four.
  const double w =
      trained_to({.steps = 1, .accumulation = 2, .learning_rate = 0.1, .optimizer = Rule::Sgd, .max_grad_norm = 0},
                 Labels(Batches{{1}, {2, 3, 6}}), 5);
  CHECK(w == Approx(5 - 0.1 * (5 - 3)));
}

TEST_CASE("clipping bounds the gradient after the division") {
  const double w = trained_to({.steps = 1, .learning_rate = 0.1, .optimizer = Rule::Sgd, .max_grad_norm = 0.5},
                              Labels(Batches{{1, 1}}), 5);
  CHECK(w == Approx(5 - 0.1 * 0.5));
}

TEST_CASE("adamw and sgd with momentum equal their naive forms over several steps") {
  double w = 5, mean = 0, square = 0;
  for (int t = 1; t <= 7; ++t) {
    const double gradient = w - 1;
    w -= 0.05 * 0.1 * w;
    mean = 0.8 * mean + 0.2 * gradient;
    square = 0.9 * square + 0.1 * gradient * gradient;
    w -= 0.05 * (mean / (1 - std::pow(0.8, t))) / (std::sqrt(square / (1 - std::pow(0.9, t))) + 1e-8);
  }
  const Params adam{
      .steps = 7, .learning_rate = 0.05, .beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.1, .max_grad_norm = 0};
  CHECK(trained_to(adam, Labels(Batches{{1}}), 5) == Approx(w).epsilon(1e-5));
  double v = 0;
  w = 5;
  for (int t = 0; t < 7; ++t) {
    v = 0.9 * v + (w - 1) + 0.01 * w;
    w -= 0.05 * v;
  }
  const Params sgd{.steps = 7,
                   .learning_rate = 0.05,
                   .optimizer = Rule::Sgd,
                   .weight_decay = 0.01,
                   .momentum = 0.9,
                   .max_grad_norm = 0};
  CHECK(trained_to(sgd, Labels(Batches{{1}}), 5) == Approx(w).epsilon(1e-5));
}

TEST_CASE("schedules rise, fall and know their span") {
  const Schedule cosine{.shape = Shape::Cosine, .warmup = 4, .total = 12, .peak = 2, .final_fraction = 0.1};
  CHECK(cosine.at(0) == Approx(0.5));
  CHECK(cosine.at(3) == Approx(2));
  CHECK(cosine.at(4) == Approx(2));
  CHECK(cosine.at(8) == Approx(2 * (0.1 + 0.9 * 0.5)));
  CHECK(cosine.at(12) == Approx(0.2));
  CHECK(cosine.at(99) == Approx(0.2));
  const Schedule linear{.shape = Shape::Linear, .total = 10, .peak = 1};
  CHECK(linear.at(5) == Approx(0.5));
  // Over the run, round 2 of 2 continues where round 1 ended.
  const Params params{
      .steps = 2, .learning_rate = 0.1, .schedule = Shape::Linear, .optimizer = Rule::Sgd, .max_grad_norm = 0};
  double w = 5;
  for (double rate : {0.05, 0.025}) w -= rate * (w - 1);
  CHECK(trained_to(params, Labels(Batches{{1}}), 5, one_round(2, 2)) == Approx(w));
  w = 5;
  auto per_round = params;
  per_round.schedule_over = Span::Round;
  for (double rate : {0.1, 0.05}) w -= rate * (w - 1);
  CHECK(trained_to(per_round, Labels(Batches{{1}}), 5, one_round(2, 2)) == Approx(w));
}

TEST_CASE("the result counts what was done, and epochs end by documents") {
  testing::QuietHost host;
  One adapter(5);
  Bowl model(adapter.w);
  Labels data(Batches{{1, 1}, {1}});
  const auto result = Sft({.steps = 4, .learning_rate = 0}, host).train(model, adapter, data, one_round());
  CHECK(result.steps == 4);
  CHECK(result.tokens == 6);
  CHECK(result.examples == 12);
  REQUIRE(result.metrics.size() == 3);
  CHECK(result.metrics[0] == std::pair<std::string, double>("loss", 8));
  Labels more(Batches{{1}});
  CHECK(Sft({.epochs = 0.5, .batch = 1}, host).train(model, adapter, more, one_round()).steps ==
        2);  // 6 of 12 documents, 3 a batch
}

TEST_CASE("frozen tensors stay, and a round starts with a fresh state") {
  testing::QuietHost host;
  One adapter(5);
  Bowl model(adapter.w);
  Labels data(Batches{{1}});
  auto context = one_round();
  context.exchange.roles = {Role::Shared, Role::Frozen};
  Sft trainer({.steps = 3, .weight_decay = 0.5}, host);
  trainer.train(model, adapter, data, context);
  CHECK(adapter.frozen.equal(at::ones({2})));
  CHECK_FALSE(adapter.frozen.requires_grad());
  const double first = adapter.w.item<double>();
  {
    at::NoGradGuard no_grad;
    adapter.w.fill_(5);
  }
  trainer.train(model, adapter, data, context);
  CHECK(adapter.w.item<double>() == first);
  context.exchange.roles = {Role::Frozen};
  CHECK_THROWS_WITH(trainer.train(model, adapter, data, context), Contains("no parameter to train"));
}

TEST_CASE("divergence, an ended source and a cancelled run end the work with a sentence") {
  testing::QuietHost host;
  One adapter(5);
  Bowl model(adapter.w);
  Labels data(Batches{{1}}), none(Batches{});
  Sft trainer({.steps = 2}, host);
  model.factor = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(trainer.train(model, adapter, data, one_round()), Contains("training diverged"));
  model.factor = 1;
  CHECK_THROWS_WITH(trainer.train(model, adapter, none, one_round()), Contains("data source ended"));
  host.cancel = true;
  CHECK_THROWS_WITH(trainer.train(model, adapter, data, one_round()), Contains("cancelled"));
}
