#include "fedprox.hpp"

#include <cmath>
#include <map>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/TensorOperators.h>

#include <hansa/testing/bare_model.hpp>

#include "../real_parts.hpp"
#include "test.hpp"

using namespace hansa;
using fedprox::FedProx;
using trainer_tests::Counting, trainer_tests::RealParts;

namespace {

TrainContext round_of(const RealParts& parts) {
  TrainContext context;
  context.plan.round = 1;
  context.rounds = 1;
  context.exchange.roles.assign(parts.layout.tensors.size(), Role::Shared);
  return context;
}
std::vector<at::Tensor> values(RealParts& parts) {
  std::vector<at::Tensor> all;
  for (Index i = 0; i < parts.layout.tensors.size(); ++i) all.push_back(parts.adapter->parameter(i).detach().clone());
  return all;
}
fedprox::Params with_mu(double mu, train::Rule rule = train::Rule::AdamW) {
  fedprox::Params params;
  params.steps = 6;
  params.batch = 2;
  params.learning_rate = rule == train::Rule::AdamW ? 0.02 : 0.3;
  params.optimizer = rule;
  params.max_grad_norm = 0;
  params.mu = mu;
  return params;
}
TrainResult learn(RealParts& parts, const fedprox::Params& params) {
  testing::QuietHost host;
  Counting data(3);
  return FedProx(params, host).train(*parts.model, *parts.adapter, data, round_of(parts));
}

}  // namespace

TEST_CASE("steps of a llama's low-rank adapter equal the formula written down") {
  for (auto rule : {train::Rule::Sgd, train::Rule::AdamW}) {
    const auto params = with_mu(0.7, rule);
    RealParts parts("lora"), naive("lora");
    learn(parts, params);
    Counting data(3);
    std::vector<at::Tensor> mean, square;
    for (const auto& one : naive.created) mean.push_back(at::zeros_like(one)), square.push_back(at::zeros_like(one));
    for (int t = 1; t <= 6; ++t) {
      const auto batch = data.next(2);
      (naive.model->loss(*batch) / static_cast<double>(batch->counted)).backward();
      const at::NoGradGuard no_grad;
      for (Index i = 0; i < naive.created.size(); ++i) {
        auto w = naive.adapter->parameter(i);
        const auto gradient = w.grad() + 0.7 * (w - naive.created[i]);
        w.mutable_grad() = at::Tensor();
        if (rule == train::Rule::Sgd) {
          w.sub_(0.3 * gradient);
          continue;
        }
        mean[i] = 0.9 * mean[i] + 0.1 * gradient;
        square[i] = 0.999 * square[i] + 0.001 * gradient * gradient;
        w.sub_(0.02 * (mean[i] / (1 - std::pow(0.9, t))) / ((square[i] / (1 - std::pow(0.999, t))).sqrt() + 1e-8));
      }
    }
    const auto found = values(parts), expected = values(naive);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto moved = (expected[i] - naive.created[i]).norm().item<double>();
      CHECK(moved > 1e-3);
      CHECK((found[i] - expected[i]).norm().item<double>() < 2e-3 * moved);
    }
  }
}

TEST_CASE("without the pull it is sft to the last bit") {
  RealParts parts("lora"), plain("lora");
  const auto params = with_mu(0);
  learn(parts, params);
  testing::QuietHost host;
  Counting data(3);
  train::run(params, host, *plain.model, *plain.adapter, data, round_of(plain));
  const auto a = values(parts), b = values(plain);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(at::equal(a[i], b[i]));
}

TEST_CASE("the stronger the pull, the less the drift, and both are reported") {
  double last = 1e9;
  for (double mu : {0.0, 0.5, 5.0}) {
    RealParts parts("lora");
    const auto result = learn(parts, with_mu(mu, train::Rule::Sgd));
    const std::map<std::string, double> metrics(result.metrics.begin(), result.metrics.end());
    double square = 0;
    const auto now = values(parts);
    for (std::size_t i = 0; i < now.size(); ++i)
      square += std::pow((now[i] - parts.created[i]).norm().item<double>(), 2);
    const double drift = metrics.at("drift");
    CHECK(drift == Approx(std::sqrt(square)));
    CHECK(metrics.at("proximal") == Approx(0.5 * mu * drift * drift));
    CHECK(drift < last);
    last = drift;
  }
}
