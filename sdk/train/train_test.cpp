#include <cmath>
#include <limits>

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
