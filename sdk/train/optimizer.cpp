#include "optimizer.hpp"

#include <cmath>
#include <map>
#include <span>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace hansa::train {

namespace {

std::vector<at::Tensor> zeros_beside(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> all;
  for (const auto& parameter : parameters) all.push_back(at::zeros_like(parameter.detach()));
  return all;
}

// Indices of parameters with a gradient: a frozen or unused one has none.
std::vector<std::size_t> with_gradient(const std::vector<at::Tensor>& parameters) {
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].grad().defined()) indices.push_back(i);
  return indices;
}
std::vector<at::Tensor> pick(const std::vector<at::Tensor>& from, const std::vector<std::size_t>& indices) {
  std::vector<at::Tensor> picked;
  for (auto index : indices) picked.push_back(from[index]);
  return picked;
}
std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters)
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  return gradients;
}

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<at::Tensor> parameters, const AdamSettings& settings)
      : parameters_(std::move(parameters)),
        settings_(settings),
        mean_(zeros_beside(parameters_)),
        square_(zeros_beside(parameters_)) {
    for (const auto& parameter : parameters_)
      steps_.push_back(at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(parameter.device())));
  }
  void step(double learning_rate) override {
    at::NoGradGuard no_grad;
    const auto which = with_gradient(parameters_);
    if (which.empty()) return;
    auto steps = pick(steps_, which);
    for (auto& count : steps) count.add_(1);
    at::_fused_adamw_(pick(parameters_, which), gradients_of(parameters_), pick(mean_, which), pick(square_, which), {},
                      steps, learning_rate, settings_.beta1, settings_.beta2, settings_.weight_decay, settings_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false);
  }

 private:
  std::vector<at::Tensor> parameters_;
  AdamSettings settings_;
  std::vector<at::Tensor> mean_, square_, steps_;
};

class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<at::Tensor> parameters, const SgdSettings& settings)
      : parameters_(std::move(parameters)), settings_(settings) {
    if (settings_.momentum > 0) velocity_ = zeros_beside(parameters_);
  }
  void step(double learning_rate) override {
    at::NoGradGuard no_grad;
    const auto which = with_gradient(parameters_);
    if (which.empty()) return;
    std::vector<at::Tensor> velocity;
    if (settings_.momentum > 0) velocity = pick(velocity_, which);
    at::_fused_sgd_(pick(parameters_, which), gradients_of(parameters_), velocity, settings_.weight_decay,
                    settings_.momentum, learning_rate, /*dampening=*/0.0, /*nesterov=*/false, /*maximize=*/false,
                    /*is_first_step=*/false);
  }

 private:
  std::vector<at::Tensor> parameters_;
  SgdSettings settings_;
  std::vector<at::Tensor> velocity_;
};

class AtRates final : public Optimizer {
 public:
  void add(double rate, std::unique_ptr<Optimizer> part) { parts_.emplace_back(rate, std::move(part)); }
  void step(double learning_rate) override {
    for (auto& [rate, part] : parts_) part->step(learning_rate * rate);
  }

 private:
  std::vector<std::pair<double, std::unique_ptr<Optimizer>>> parts_;
};

}  // namespace

std::unique_ptr<Optimizer> at_rates(const std::vector<at::Tensor>& parameters, const std::vector<double>& rates,
                                    const std::function<std::unique_ptr<Optimizer>(std::vector<at::Tensor>)>& make) {
  std::map<double, std::vector<at::Tensor>> by_rate;
  for (std::size_t i = 0; i < parameters.size(); ++i) by_rate[rates.at(i)].push_back(parameters[i]);
  if (by_rate.size() == 1 && by_rate.begin()->first == 1) return make(parameters);
  auto all = std::make_unique<AtRates>();
  for (auto& [rate, part] : by_rate) all->add(rate, make(std::move(part)));
  return all;
}

std::unique_ptr<Optimizer> adamw(std::vector<at::Tensor> parameters, const AdamSettings& settings) {
  return std::make_unique<AdamW>(std::move(parameters), settings);
}
std::unique_ptr<Optimizer> sgd(std::vector<at::Tensor> parameters, const SgdSettings& settings) {
  return std::make_unique<Sgd>(std::move(parameters), settings);
}

double scale_gradients(const std::vector<at::Tensor>& parameters, double factor, double most) {
  at::NoGradGuard no_grad;
  auto gradients = gradients_of(parameters);
  if (gradients.empty()) return 0;
  std::vector<at::Tensor> norms;
  for (const auto& gradient : gradients) norms.push_back(at::linalg_vector_norm(gradient));
  const auto all = at::stack(norms).to(at::kCPU, at::kDouble);  // once, where a device has to be waited for
  double square = 0;
  for (const double norm : std::span(all.const_data_ptr<double>(), norms.size())) square += norm * norm;
  const double norm = std::sqrt(square) * factor;
  if (most > 0 && norm > most) factor *= most / norm;
  at::_foreach_mul_(gradients, factor);
  return norm;
}

void clear_gradients(const std::vector<at::Tensor>& parameters) {
  for (auto parameter : parameters) parameter.mutable_grad() = at::Tensor();
}

}  // namespace hansa::train
