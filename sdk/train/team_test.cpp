#include "train/team.hpp"

#include <barrier>
#include <map>
#include <thread>

#include <ATen/core/grad_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "train/loop.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::train;
using Catch::Matchers::Contains;

namespace {

// Threads of one process instead of processes: what they do is put together in turn, between two barriers.
class Desk {
 public:
  explicit Desk(std::size_t count) : size(count), barrier(static_cast<std::ptrdiff_t>(count)) {}
  const std::size_t size;
  std::barrier<> barrier;
  std::vector<at::Tensor*> parts = std::vector<at::Tensor*>(size);
  std::vector<std::string> failures = std::vector<std::string>(size);
  std::size_t sums = 0;  // that were made, and of them the largest
  std::int64_t largest = 0;
};
class Thread final : public Peers {
 public:
  Thread(Desk& desk, std::size_t rank) : desk_(desk), rank_(rank) {}
  std::size_t rank() const override { return rank_; }
  std::size_t size() const override { return desk_.size; }
  void sum(at::Tensor& part) override {
    desk_.parts[rank_] = &part;
    desk_.barrier.arrive_and_wait();
    if (rank_ == 0) {
      at::Tensor total = desk_.parts[0]->clone();
      for (std::size_t i = 1; i < desk_.size; ++i) total.add_(*desk_.parts[i]);
      for (auto* each : desk_.parts) each->copy_(total);
      ++desk_.sums;
      desk_.largest = std::max(desk_.largest, part.numel());
    }
    desk_.barrier.arrive_and_wait();
  }
  void agree(std::string_view failure) override {
    desk_.failures[rank_] = failure;
    desk_.barrier.arrive_and_wait();
    const auto all = desk_.failures;
    desk_.barrier.arrive_and_wait();
    for (std::size_t i = 0; i < all.size(); ++i)
      if (!all[i].empty()) throw Error(fmt::format("process {}: {}", i, all[i]));
  }

 private:
  Desk& desk_;
  std::size_t rank_;
};

constexpr std::int64_t kWidth = 5;

class Vectors : public Stateless<Adapter> {  // a vector that is used, and one that is not
 public:
  Vectors() {
    parameters = {at::linspace(-1, 1, kWidth, at::kFloat).requires_grad_(true),
                  at::full({3}, 2, at::kFloat).requires_grad_(true)};
  }
  Layout layout(std::span<const Module>, double) const override { return {}; }
  void create(const Model&, std::span<const Module>, double, std::uint64_t) override {}
  at::Tensor parameter(Index i) override { return parameters.at(i); }
  std::vector<Injection> injections() override { return {}; }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path&) const override {}
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const Model&, std::span<const Module>) override {}
  std::vector<at::Tensor> parameters;
};
class Fit : public testing::BareModel {  // the sum over the counted labels of (w · f(token) - label / 7)^2
 public:
  explicit Fit(const Vectors& adapter) : adapter_(adapter) {}
  at::Tensor loss(const Batch& batch) override {
    rows += batch.tokens.size(0);
    if (fails_at == ++calls) throw std::runtime_error("out of memory");
    const auto powers = at::arange(1, kWidth + 1, at::kFloat);
    const auto features = (batch.tokens.to(at::kFloat).unsqueeze(-1) * powers / 9).sin();
    const auto error = (features * adapter_.parameters[0]).sum(-1) - batch.labels.to(at::kFloat) / 7;
    return (error * error * batch.labels.ge(0)).sum();
  }
  void enable_dropout(std::uint64_t seed) override { seeds.push_back(seed); }
  void disable_dropout() override {}
  std::int64_t rows = 0;
  int calls = 0, fails_at = -1;
  std::vector<std::uint64_t> seeds;

 private:
  const Vectors& adapter_;
};
class Rows : public Stateless<DataSource> {  // of four tokens, some of whose labels do not count; endless
 public:
  explicit Rows(std::int64_t first = 0, Task task = Task::Language) : start_(first), task_(task) {}
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 40; }
  void shuffle(std::uint64_t) override { at_ = start_, ends_ = false; }
  void rewind() override { at_ = start_, ends_ = true; }
  std::optional<Batch> next(std::int64_t rows) override {
    if (ends_) rows = std::min(rows, start_ + 40 - at_);
    if (rows == 0) return std::nullopt;
    const auto tokens = (at::arange(at_ * 4, (at_ + rows) * 4, at::kLong) % 160).view({rows, 4});
    at_ += rows;
    auto labels = (tokens * 3) % 11;
    labels = labels.masked_fill(tokens % 5 == 0, -100);
    if (!ends_) labels.select(0, 0).fill_(-100);  // whoever has this row only, has nothing to do
    const auto counted = labels.ge(0).sum().item<std::int64_t>();
    return Batch{.tokens = tokens, .labels = labels, .counted = counted, .documents = rows, .task = task_};
  }

 private:
  std::int64_t start_, at_ = 0;
  Task task_;
  bool ends_ = true;
};

struct Outcome {
  std::vector<at::Tensor> parameters;
  TrainResult result;
  std::string failure;
  std::int64_t rows = 0;
  std::vector<std::uint64_t> seeds;
};
struct Trial {
  Params params;
  std::size_t processes = 1;
  int fails_at = -1;  // the last process's call
  bool other_text = false, cancelled = false;
  std::size_t sums = 0;
  std::int64_t largest = 0;

  std::vector<Outcome> run() {
    Desk desk(processes);
    std::vector<Outcome> all(processes);
    {
      std::vector<std::jthread> threads;
      for (std::size_t rank = 0; rank < processes; ++rank)
        threads.emplace_back([&, rank] { all[rank] = one(desk, rank); });
    }
    sums = desk.sums;
    largest = desk.largest;
    return all;
  }
  Outcome one(Desk& desk, std::size_t rank) const {
    const bool last = rank + 1 == processes;
    testing::QuietHost host;
    host.cancel = cancelled && last;
    Vectors adapter;
    Fit model(adapter);
    if (last) model.fails_at = fails_at;
    Rows data(other_text && last ? 3 : 0);
    data.shuffle(1);
    Thread peers(desk, rank);
    TrainContext context;
    context.exchange.roles = {Role::Shared, Role::Shared};
    context.peers = &peers;
    context.seed = 7;
    Outcome outcome;
    try {
      outcome.result = train::run(params, host, model, adapter, data, context, {}, objective);
    } catch (const std::exception& failed) {
      outcome.failure = failed.what();
    }
    outcome.parameters = adapter.parameters;
    outcome.rows = model.rows;
    outcome.seeds = model.seeds;
    return outcome;
  }
  Objective objective = [](Model& model, const Batch& batch, Dropout&) -> Found {
    return {model.loss(batch),
            static_cast<std::uint64_t>(batch.counted),
            {{"twice", 2.0 * static_cast<double>(batch.counted)}}};
  };
};

double distance(const at::Tensor& a, const at::Tensor& b) {
  const at::NoGradGuard no_grad;
  return ((a - b).norm() / b.norm()).item<double>();
}
double metric(const Outcome& outcome, const std::string& name) {
  const std::map<std::string, double> all(outcome.result.metrics.begin(), outcome.result.metrics.end());
  return all.at(name);
}

}  // namespace

TEST_CASE("several processes end where one does: odd batches, accumulation, early stop") {
  const Params plain{.steps = 6, .batch = 5, .learning_rate = 0.02};
  auto accumulated = plain, stopping = plain, single = plain, clipped = plain;
  accumulated.accumulation = 3;
  stopping.held_out = 0.2;
  stopping.check_every = 2;
  single.batch = 2;  // fewer rows than processes
  clipped.max_grad_norm = 0.05;
  clipped.optimizer = Rule::Sgd;
  for (const auto& params : {plain, accumulated, stopping, single, clipped}) {
    const auto alone = Trial{.params = params}.run().front();
    REQUIRE(alone.failure.empty());
    for (const std::size_t processes : {2u, 3u}) {
      Trial trial{.params = params, .processes = processes};
      const auto all = trial.run();
      for (const auto& each : all) {
        CAPTURE(each.failure);
        REQUIRE(each.failure.empty());
        CHECK(distance(each.parameters[0], alone.parameters[0]) < 1e-6);
        CHECK(at::equal(each.parameters[0], all[0].parameters[0]));
        CHECK(at::equal(each.parameters[1], alone.parameters[1]));
        CHECK_FALSE(each.parameters[1].grad().defined());
        CHECK(each.result.tokens == alone.result.tokens);
        CHECK(each.result.examples == alone.result.examples);
        CHECK(each.result.steps == alone.result.steps);
        for (const auto* name : {"loss", "loss_first", "loss_last"})
          CHECK(metric(each, name) == Approx(metric(alone, name)).epsilon(1e-6));
      }
      // The first row has no label: with one row each the first process knows no sum by name.
      if (params.batch > 2) CHECK(metric(all[0], "twice") == Approx(2));
    }
  }
}

TEST_CASE("the rows are shared out, and a step sends the gradients once") {
  const Params params{.steps = 4, .batch = 7, .accumulation = 2, .diverged_above = 0};
  const auto alone = Trial{.params = params}.run().front();
  Trial trial{.params = params, .processes = 3};
  const auto all = trial.run();
  CHECK(all[0].rows + all[1].rows + all[2].rows == alone.rows);
  CHECK(all[2].rows == 4 * 2 * 2);
  CHECK(trial.sums == 4 * 2 + 1);  // a step: small numbers, then gradients; at the end what is reported
  CHECK(trial.largest == 16);      // below it: the used vector has five elements
}

TEST_CASE("masks of dropout differ between processes, and the first one's are those of one process") {
  const Params params{.steps = 1, .batch = 4};
  const auto alone = Trial{.params = params}.run().front();
  const auto all = Trial{.params = params, .processes = 2}.run();
  CHECK(all[0].seeds.front() == alone.seeds.front());
  CHECK(all[1].seeds.front() != alone.seeds.front());
}

TEST_CASE("where one process fails or is cancelled, all give the work up with its reason") {
  const Params params{.steps = 5, .batch = 4, .accumulation = 2};
  for (const auto& each : Trial{.params = params, .processes = 2, .fails_at = 5}.run())
    CHECK_THAT(each.failure, Contains("process 1: out of memory"));
  for (const auto& each : Trial{.params = params, .processes = 3, .cancelled = true}.run())
    CHECK_THAT(each.failure, Contains("process 2: training was cancelled"));
}

TEST_CASE("a loss that is not a number in one process ends the work in all") {
  Trial trial{.params = {.steps = 3, .batch = 4}, .processes = 2};
  const auto plain = trial.objective;
  trial.objective = [&](Model& model, const Batch& batch, Dropout& dropout) {
    auto found = plain(model, batch, dropout);
    if (batch.tokens[0][0].item<std::int64_t>() == 24) found.sum = found.sum * NAN;  // a row of the second's
    return found;
  };
  for (const auto& each : trial.run()) CHECK_THAT(each.failure, Contains("training diverged"));
}

TEST_CASE("processes that read different text are told so") {
  for (const auto& each : Trial{.params = {.steps = 3, .batch = 4}, .processes = 3, .other_text = true}.run())
    CHECK_THAT(each.failure, Contains("read different text"));
}

TEST_CASE("parts of a batch are all of it, in order; pairs stay together") {
  for (const auto task : {Task::Language, Task::Preference}) {
    Rows data(0, task);
    data.shuffle(1);
    const auto whole = *data.next(10);
    for (const std::size_t size : {1u, 2u, 3u, 4u, 7u}) {
      std::int64_t first = 0, counted = 0;
      for (std::size_t rank = 0; rank < size; ++rank) {
        const auto part = part_of(whole, rank, size);
        const auto rows = part.tokens.size(0);
        if (task == Task::Preference) CHECK(rows % 2 == 0);
        CHECK(at::equal(part.tokens, whole.tokens.narrow(0, first, rows)));
        CHECK(at::equal(part.labels, whole.labels.narrow(0, first, rows)));
        CHECK_FALSE(part.segments.defined());
        CHECK(part.documents == whole.documents);
        first += rows;
        counted += part.counted;
      }
      CHECK(first == 10);
      CHECK(counted == whole.counted);
    }
  }
}
