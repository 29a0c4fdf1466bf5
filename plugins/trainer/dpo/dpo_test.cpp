#include "dpo.hpp"

#include <cmath>
#include <map>

#include <ATen/core/grad_mode.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/TensorOperators.h>

#include <hansa/testing/bare_model.hpp>

#include "../real_parts.hpp"
#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::dpo;
using Catch::Matchers::Contains;
using trainer_tests::Counting, trainer_tests::Pairs, trainer_tests::RealParts;

namespace {

using Named = std::map<std::string, double>;

TrainContext round_of(const RealParts& parts) {
  TrainContext context;
  context.plan.round = 1;
  context.rounds = 1;
  context.exchange.roles.assign(parts.layout.tensors.size(), Role::Shared);
  return context;
}
Params one_step(double rate) {
  Params params;
  params.steps = 1;
  params.batch = 6;
  params.learning_rate = rate;
  params.optimizer = train::Rule::Sgd;
  params.max_grad_norm = 0;
  params.diverged_above = 0;
  params.beta = 0.3;
  return params;
}
Named learn(RealParts& parts, const Params& params) {
  testing::QuietHost host;
  Pairs data(3);
  const auto result = Dpo(params, host).train(*parts.model, *parts.adapter, data, round_of(parts));
  Named metrics(result.metrics.begin(), result.metrics.end());
  metrics["tokens"] = static_cast<double>(result.tokens);
  metrics["examples"] = static_cast<double>(result.examples);
  return metrics;
}
void shift(RealParts& parts, const std::vector<at::Tensor>& by, double factor) {
  const at::NoGradGuard no_grad;
  for (Index i = 0; i < by.size(); ++i) parts.adapter->parameter(i).add_(by[i], factor);
}
std::vector<at::Tensor> directions(const RealParts& parts, double size, std::uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  std::vector<at::Tensor> all;
  for (const auto& one : parts.created) all.push_back(at::randn(one.sizes(), generator, at::kFloat) * size);
  return all;
}
// Log-probabilities of the answers of a batch's rows, each row by itself.
std::vector<double> answers(RealParts& parts, const Batch& batch) {
  const at::NoGradGuard no_grad;
  std::vector<double> all;
  for (std::int64_t r = 0; r < batch.tokens.size(0); ++r) {
    const Batch row{.tokens = batch.tokens.narrow(0, r, 1), .labels = batch.labels.narrow(0, r, 1)};
    all.push_back(-parts.model->loss(row).item<double>());
  }
  return all;
}
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("losses and rewards of pairs equal the formulas, and their derivatives the analytic ones") {
  const std::vector<double> chosen{-10, -3, -40, -7.5}, rejected{-12, -2.5, -30, -7.5}, ref_chosen{-11, -4, -35, -7},
      ref_rejected{-11.5, -2, -36, -8};
  const auto of = [](const std::vector<double>& from) { return at::tensor(from, at::kDouble).to(at::kFloat); };
  for (double beta : {0.05, 0.5})
    for (double smoothing : {0.0, 0.2})
      for (auto loss : {Loss::Sigmoid, Loss::Ipo}) {
        Params params;
        params.beta = beta;
        params.label_smoothing = smoothing;
        params.loss = loss;
        auto better = of(chosen).requires_grad_(true);
        const auto found = pair_losses(params, {better, of(rejected)}, {of(ref_chosen), of(ref_rejected)});
        found.losses.sum().backward();
        for (std::int64_t i = 0; i < 4; ++i) {
          const auto n = static_cast<std::size_t>(i);
          const double gap = chosen[n] - rejected[n] - (ref_chosen[n] - ref_rejected[n]), z = beta * gap;
          const double sigmoid = -(1 - smoothing) * std::log(logistic(z)) - smoothing * std::log(logistic(-z));
          const double slope = beta * (logistic(z) - (1 - smoothing));
          const double off = gap - 1 / (2 * beta);
          const bool ipo = loss == Loss::Ipo;
          CHECK(found.losses[i].item<double>() == Approx(ipo ? off * off : sigmoid).epsilon(1e-5));
          CHECK(better.grad()[i].item<double>() == Approx(ipo ? 2 * off : slope).epsilon(1e-4));
          CHECK(found.rewards[i].item<double>() == Approx(z).epsilon(1e-5));
        }
      }
}

TEST_CASE(
    "what is reported for a llama equals the formula over its rows; the reference is the model without the adapter") {
  for (auto loss : {Loss::Sigmoid, Loss::Ipo}) {
    RealParts parts("lora");
    shift(parts, directions(parts, 0.3, 1), 1);
    auto params = one_step(0);
    params.loss = loss;
    Pairs data(3);
    const auto batch = *data.next(6);
    const auto policy = answers(parts, batch);
    parts.model->inject({});
    const auto reference = answers(parts, batch);
    parts.model->inject(parts.adapter->injections());
    double total = 0, margin = 0, right = 0;
    for (std::size_t i = 0; i < 6; i += 2) {
      const auto length = [&](std::size_t row) {
        return loss == Loss::Ipo ? batch.labels[static_cast<std::int64_t>(row)].ge(0).sum().item<double>() : 1.0;
      };
      const double gap = (policy[i] - reference[i]) / length(i) - (policy[i + 1] - reference[i + 1]) / length(i + 1);
      total += loss == Loss::Ipo ? std::pow(gap - 1 / 0.6, 2) : -std::log(logistic(0.3 * gap));
      margin += 0.3 * gap;
      right += gap > 0 ? 1 : 0;
    }
    const auto told = learn(parts, params);
    CHECK(told.at("loss") == Approx(total / 3).epsilon(1e-4));
    CHECK(told.at("reward_margin") == Approx(margin / 3).epsilon(1e-3));
    CHECK(told.at("reward_accuracy") == Approx(right / 3));
    CHECK(told.at("tokens") == static_cast<double>(batch.counted));
    CHECK(told.at("examples") == 3);
    const auto after = answers(parts, batch);  // the adapter is in the model again
    for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i] == Approx(policy[i]));
  }
}

TEST_CASE("gradients equal finite differences of the reported loss") {
  for (auto loss : {Loss::Sigmoid, Loss::Ipo}) {
    RealParts parts("lora");
    shift(parts, directions(parts, 0.2, 2), 1);
    std::vector<at::Tensor> before;
    for (Index i = 0; i < parts.created.size(); ++i) before.push_back(parts.adapter->parameter(i).detach().clone());
    auto params = one_step(0.5);
    params.loss = loss;
    params.label_smoothing = loss == Loss::Sigmoid ? 0.1 : 0;
    learn(parts, params);
    std::vector<at::Tensor> gradients;
    {
      const at::NoGradGuard no_grad;
      for (Index i = 0; i < before.size(); ++i) {
        auto now = parts.adapter->parameter(i);
        gradients.push_back((before[i] - now) / 0.5);
        now.copy_(before[i]);
      }
    }
    params.learning_rate = 0;
    for (int trial = 0; trial < 3; ++trial) {
      const auto along = directions(parts, 1, 10 + static_cast<std::uint64_t>(trial));
      double expected = 0;
      for (std::size_t i = 0; i < along.size(); ++i) expected += (along[i] * gradients[i]).sum().item<double>();
      const auto slope = [&](double step) {
        shift(parts, along, step);
        const double ahead = learn(parts, params).at("loss");
        shift(parts, along, -2 * step);
        const double behind = learn(parts, params).at("loss");
        shift(parts, along, step);
        return (ahead - behind) / (2 * step);
      };
      // The loss bends sharply: two steps, whose third-order errors cancel (Richardson's extrapolation), as smaller ones
      // would drown in single precision.
      constexpr double kStep = 5e-4;
      CHECK((4 * slope(kStep) - slope(2 * kStep)) / 3 == Approx(expected).epsilon(0.02).margin(0.02));
    }
  }
}

TEST_CASE(
    "near what the round began with, the first step knows no difference, and the parameters are those that moved") {
  RealParts parts("lora"), base("lora");
  shift(parts, directions(parts, 0.3, 1), 1);
  auto params = one_step(0.01);
  params.steps = 8;
  params.reference = Reference::RoundStart;
  const auto told = learn(parts, params);
  CHECK(told.at("loss_first") == Approx(std::log(2)).epsilon(1e-5));
  CHECK(told.at("loss_last") < told.at("loss_first"));
  CHECK(told.at("reward_margin") > 0);
  // A fresh adapter changes nothing: both references are the same model, and training gives the same.
  RealParts started("lora");
  learn(started, params);
  params.reference = Reference::Base;
  learn(base, params);
  for (Index i = 0; i < base.created.size(); ++i)
    CHECK((base.adapter->parameter(i) - started.adapter->parameter(i)).abs().max().item<double>() < 1e-6);
}

TEST_CASE("pairs teach which answer is the better one") {
  RealParts parts("lora");
  auto params = one_step(0.02);
  params.optimizer = train::Rule::AdamW;
  params.steps = 30;
  learn(parts, params);
  params.steps = 1;
  params.learning_rate = 0;
  const auto told = learn(parts, params);
  CHECK(told.at("reward_accuracy") == 1);
  CHECK(told.at("loss") < 0.4);
}

TEST_CASE("batches that are not pairs are refused") {
  RealParts parts("lora");
  testing::QuietHost host;
  Counting data(3);
  CHECK_THROWS_WITH(Dpo(one_step(0.1), host).train(*parts.model, *parts.adapter, data, round_of(parts)),
                    Contains("pairs of a better and a worse answer"));
  Pairs odd(3);
  auto params = one_step(0.1);
  params.batch = 5;
  CHECK_THROWS_WITH(Dpo(params, host).train(*parts.model, *parts.adapter, odd, round_of(parts)),
                    Contains("odd number"));
}
