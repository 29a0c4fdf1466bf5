#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <hansa/testing/bare_model.hpp>

#include "train/loop.hpp"

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::train;
using Catch::Matchers::Contains;

namespace {

class Several : public Stateless<Adapter> {  // scalars, all starting at 5
 public:
  explicit Several(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) parameters.push_back(at::full({}, 5, at::kFloat).requires_grad_(true));
  }
  Layout layout(std::span<const Module>, double) const override { return {}; }
  void create(const Model&, std::span<const Module>, double, std::uint64_t) override {}
  at::Tensor parameter(Index i) override { return parameters.at(i); }
  std::vector<Injection> injections() override { return {}; }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path&) const override {}
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const Model&, std::span<const Module>) override {}
  double at(std::size_t i) const { return parameters.at(i).item<double>(); }
  std::vector<at::Tensor> parameters;
};
class Bowls : public testing::BareModel {  // the sum over the labels of sum_j (w_j - label)^2 / 2, without the last w
 public:
  explicit Bowls(const Several& adapter) : adapter_(adapter) {}
  at::Tensor loss(const Batch& batch) override {
    auto total = at::zeros({}, at::kFloat);
    for (std::size_t j = 0; j + 1 < adapter_.parameters.size(); ++j) {
      auto error = adapter_.parameters[j] - batch.labels;
      total = total + (error * error).sum() * 0.5;
    }
    return total;
  }

 private:
  const Several& adapter_;
};
class Ones : public Stateless<DataSource> {  // batches of one label, then of three
 public:
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 4; }
  void shuffle(std::uint64_t) override {}
  void rewind() override {}
  std::optional<Batch> next(std::int64_t) override {
    const std::int64_t count = given++ % 2 == 0 ? 1 : 3;
    return Batch{.labels = at::full({count}, static_cast<double>(count), at::kFloat), .counted = count, .documents = 1};
  }
  int given = 0;
};

struct Bench {
  testing::QuietHost host;
  Several adapter;
  Bowls model{adapter};
  Ones data;
  TrainContext context;
  explicit Bench(std::vector<Role> roles) : adapter(roles.size()) { context.exchange.roles = std::move(roles); }
  TrainResult run(const Params& params, const Hook& hook = {}) {
    return train::run(params, host, model, adapter, data, context, hook);
  }
};
constexpr Params kPlain{
    .steps = 1, .accumulation = 2, .learning_rate = 0.1, .optimizer = Rule::Sgd, .max_grad_norm = 0.5};

}  // namespace

TEST_CASE("what is Shared or Personal trains; what is Frozen or Derived rests and gets no gradient") {
  Bench bench({Role::Shared, Role::Frozen, Role::Personal, Role::Derived, Role::Shared});
  std::vector<Index> seen;
  bench.run(kPlain, [&](const Trained& what) { seen = what.indices; });
  CHECK(seen == std::vector<Index>{0, 2, 4});
  CHECK(bench.adapter.at(0) < 5);
  CHECK(bench.adapter.at(1) == 5);
  CHECK(bench.adapter.at(2) < 5);
  CHECK(bench.adapter.at(3) == 5);
  for (std::size_t i : {1u, 3u}) {
    CHECK_FALSE(bench.adapter.parameters[i].requires_grad());
    CHECK_FALSE(bench.adapter.parameters[i].grad().defined());
  }
  bench.context.exchange.roles = {Role::Frozen, Role::Derived};
  CHECK_THROWS_WITH(bench.run(kPlain), Contains("no parameter to train"));
}

TEST_CASE("the hook sees the mean per token of the whole accumulation before the clip, once a step") {
  // Labels 1 and 3, 3, 3: the gradient is 5 - 2.5 in each of two parameters.
  Bench bench({Role::Shared, Role::Shared, Role::Shared});
  auto params = kPlain;
  params.steps = 3;
  params.learning_rate = 0;
  int calls = 0;
  bench.run(params, [&](const Trained& what) {
    ++calls;
    CHECK(what.parameters[0].grad().item<double>() == Approx(2.5));
    CHECK(what.parameters[1].grad().item<double>() == Approx(2.5));
    CHECK_FALSE(what.parameters[2].grad().defined());  // the model does not use it
  });
  CHECK(calls == 3);
}

TEST_CASE("what the hook leaves is clipped and stepped with") {
  Bench bench({Role::Shared, Role::Shared});
  bench.run(kPlain, [&](const Trained& what) { what.parameters[0].grad().sub_(2.2); });
  CHECK(bench.adapter.at(0) == Approx(5 - 0.1 * 0.3));  // below the bound
  bench.run(kPlain, [&](const Trained& what) { what.parameters[0].grad().fill_(-40); });
  CHECK(bench.adapter.at(0) == Approx(5 - 0.1 * 0.3 + 0.1 * 0.5));
  CHECK_THROWS_WITH(bench.run(kPlain, [](const Trained& what) { what.parameters[0].grad().fill_(NAN); }),
                    Contains("training diverged"));
}

TEST_CASE("a hook that does nothing changes nothing but rounding") {
  Bench with({Role::Shared, Role::Shared}), without({Role::Shared, Role::Shared});
  Params params{.steps = 9, .accumulation = 2, .learning_rate = 0.05};
  const auto a = with.run(params, [](const Trained&) {}), b = without.run(params);
  CHECK(with.adapter.at(0) == Approx(without.adapter.at(0)).epsilon(1e-6));
  CHECK(a.tokens == b.tokens);
  CHECK(a.steps == b.steps);
}

// ---- divergence, early stop

namespace {

// One weight; what its loss is at each call, whatever the batch says.
class Told : public testing::BareModel {
 public:
  Told(const Several& adapter, std::vector<double> losses) : adapter_(adapter), losses_(std::move(losses)) {}
  at::Tensor loss(const Batch& batch) override {
    const double value = losses_.at(std::min(calls++, losses_.size() - 1));
    return (adapter_.parameters[0] * 0 + value) * static_cast<double>(batch.counted);
  }
  std::size_t calls = 0;

 private:
  const Several& adapter_;
  std::vector<double> losses_;
};

TrainResult run_told(std::vector<double> losses, Params params) {
  testing::QuietHost host;
  Several adapter(1);
  Told model(adapter, std::move(losses));
  Ones data;
  TrainContext context;
  context.exchange.roles = {Role::Shared};
  return train::run(params, host, model, adapter, data, context);
}

// Examples 0 to 9, one token each; the loss is (w - target)^2 / 2, with another target for those that are held out.
class Numbers : public Stateless<DataSource> {
 public:
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 10; }
  void shuffle(std::uint64_t) override { at_ = 0, ends_ = false; }
  void rewind() override { at_ = 0, ends_ = true; }
  std::optional<Batch> next(std::int64_t rows) override {
    Batch batch{.tokens = at::zeros({rows, 1}, at::kLong), .labels = at::zeros({rows, 1}, at::kLong)};
    for (; batch.documents < rows && (!ends_ || at_ < 10); ++batch.documents, ++at_)
      batch.tokens.select(0, batch.documents).fill_(at_ % 10);
    if (batch.documents == 0) return std::nullopt;
    batch.tokens = batch.tokens.narrow(0, 0, batch.documents);
    batch.labels = batch.labels.narrow(0, 0, batch.documents);
    batch.counted = batch.documents;
    return batch;
  }

 private:
  std::int64_t at_ = 0;
  bool ends_ = true;
};
class TwoBowls : public testing::BareModel {
 public:
  explicit TwoBowls(const Several& adapter) : adapter_(adapter) {}
  void enable_dropout(std::uint64_t seed) override { seeds.push_back(seed), dropout = true; }
  void disable_dropout() override { dropout = false; }
  at::Tensor loss(const Batch& batch) override {  // held-out batches are looked at without dropout
    if (dropout)
      for (std::int64_t i = 0; i < batch.tokens.size(0); ++i)
        learnt.insert(batch.tokens.select(0, i).item<std::int64_t>());
    auto error = adapter_.parameters[0] - (dropout ? 0.0 : 4.0);
    return error * error * 0.5 * static_cast<double>(batch.counted);
  }
  std::vector<std::uint64_t> seeds;
  std::set<std::int64_t> learnt;
  bool dropout = false;

 private:
  const Several& adapter_;
};

}  // namespace

TEST_CASE("a loss that explodes ends the work with the step, the loss, where it began and what to lower") {
  CHECK_THROWS_WITH(run_told({2, 2, 2, 50}, {.steps = 9, .learning_rate = 0.25}),
                    Contains("diverged") && Contains("after step 4") && Contains("it began at 2") &&
                        Contains("diverged_above = 4") && Contains("learning_rate (now 0.25)") &&
                        Contains("nothing is sent"));
  CHECK_THROWS_WITH(run_told({2, NAN}, {.steps = 9}), Contains("diverged") && Contains("step 2 is nan"));
  CHECK_THROWS_WITH(run_told({2, INFINITY}, {.steps = 9, .diverged_above = 0}), Contains("step 2 is inf"));
  CHECK_NOTHROW(run_told({2, 2, 50}, {.steps = 9, .diverged_above = 0}));
}

TEST_CASE("one hard batch is no divergence, and below one nat the factor is taken from one") {
  CHECK_NOTHROW(run_told({2, 2, 2, 2, 15, 2}, {.steps = 9}));
  CHECK_NOTHROW(run_told({0.01, 0.5}, {.steps = 9}));
  CHECK_THROWS_WITH(run_told({0.01, 4.5}, {.steps = 9}), Contains("diverged"));
}

TEST_CASE("what the last step did is looked at before anything is sent") {
  CHECK_THROWS_WITH(run_told({2, 90}, {.steps = 1}), Contains("diverged") && Contains("on the last batch"));
  CHECK_THROWS_WITH(run_told({2, NAN}, {.steps = 1}), Contains("diverged"));
  CHECK(run_told({2, 1}, {.steps = 1}).steps == 1);
}

TEST_CASE("early stop: the state with the best held-out loss stays, and the steps are those that were made") {
  testing::QuietHost host;
  Several adapter(1);  // from 5 towards 0, past the 4 that the held-out part wants
  TwoBowls model(adapter);
  Numbers data;
  TrainContext context;
  context.exchange.roles = {Role::Shared};
  context.seed = 11;
  const Params params{.steps = 50,
                      .batch = 3,
                      .learning_rate = 0.05,
                      .optimizer = Rule::Sgd,
                      .max_grad_norm = 0,
                      .held_out = 0.3,
                      .check_every = 1,
                      .patience = 3};
  const auto result = train::run(params, host, model, adapter, data, context);
  double w = 5, best = 5;
  std::uint64_t best_at = 0;
  for (std::uint64_t step = 1; step <= 50; ++step) {
    w -= 0.05 * w;
    if (std::abs(w - 4) < std::abs(best - 4)) best = w, best_at = step;
  }
  CHECK(adapter.at(0) == Approx(best));
  CHECK(result.steps == best_at + 3);
  const std::map<std::string, double> metrics(result.metrics.begin(), result.metrics.end());
  CHECK(metrics.at("steps_kept") == static_cast<double>(best_at));
  CHECK(metrics.at("held_out_first") == Approx(0.5));
  CHECK(metrics.at("held_out_best") == Approx(0.5 * (best - 4) * (best - 4)));
  CHECK_FALSE(model.dropout);
  CHECK(model.learnt.size() < 10);
  CHECK(model.learnt.size() > 2);
  CHECK(model.seeds.front() == 11);  // and after each look the masks go on as others
  CHECK(std::set<std::uint64_t>(model.seeds.begin(), model.seeds.end()).size() == model.seeds.size());

  const auto again = [&] {
    const at::NoGradGuard no_grad;
    adapter.parameters[0].fill_(5);
    model.learnt.clear();
    const at::AutoGradMode on(true);
    train::run(params, host, model, adapter, data, context);
    return model.learnt;
  };
  const auto learnt = model.learnt;
  context.seed = 12;  // another round: the same part is held out
  CHECK(again() == learnt);
  context.node = 9;
  CHECK(again() != learnt);
}

TEST_CASE("a round that makes the held-out loss worse from the first step changes nothing") {
  testing::QuietHost host;
  Several adapter(1);
  TwoBowls model(adapter);
  {
    at::NoGradGuard no_grad;
    adapter.parameters[0].fill_(4);
  }
  Numbers data;
  TrainContext context;
  context.exchange.roles = {Role::Shared};
  const auto result = train::run({.steps = 9, .batch = 3, .held_out = 0.3, .check_every = 2, .patience = 2}, host,
                                 model, adapter, data, context);
  CHECK(adapter.at(0) == 4);
  CHECK(result.steps == 4);
}

TEST_CASE("single-text training refuses pairs") {
  testing::QuietHost host;
  Several adapter(1);
  Told model(adapter, {1});
  train::Dropout dropout(model, 1);
  CHECK_THROWS_WITH(train::model_loss(model, {.task = Task::Preference}, dropout), Contains("would learn both"));
}
