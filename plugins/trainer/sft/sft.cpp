#include "sft.hpp"

#include <cmath>
#include <limits>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::sft {

namespace {

// The adapter's trained tensors; frozen ones lose their gradient for this round.
std::vector<at::Tensor> trained(Adapter& adapter, const Exchange& exchange) {
  std::vector<at::Tensor> parameters;
  for (Index i = 0; i < exchange.roles.size(); ++i) {
    auto parameter = adapter.parameter(i);
    const bool frozen = exchange.roles[i] == Role::Frozen;
    parameter.set_requires_grad(!frozen);
    if (!frozen) parameters.push_back(parameter);
  }
  if (parameters.empty()) throw Error("trainer sft: the exchange leaves no parameter to train");
  return parameters;
}

std::unique_ptr<Optimizer> make_optimizer(const Params& p, const std::vector<at::Tensor>& parameters) {
  if (p.optimizer == Rule::Sgd) return sgd(parameters, {.momentum = p.momentum, .weight_decay = p.weight_decay});
  return adamw(parameters, {.beta1 = p.beta1, .beta2 = p.beta2, .epsilon = p.epsilon, .weight_decay = p.weight_decay});
}

// Dropout is on for the length of a training, however it ends.
class DropoutScope {
 public:
  DropoutScope(Model& model, std::uint64_t seed) : model_(model) { model_.enable_dropout(seed); }
  ~DropoutScope() { model_.disable_dropout(); }

 private:
  Model& model_;
};

double mean(double nats, std::uint64_t tokens) { return tokens == 0 ? 0 : nats / static_cast<double>(tokens); }

}  // namespace

std::uint64_t Sft::steps(std::uint64_t examples) const {
  if (!params_.epochs) return static_cast<std::uint64_t>(params_.steps);
  const double rows = static_cast<double>(params_.batch * params_.accumulation);
  return std::max<std::uint64_t>(
      1, static_cast<std::uint64_t>(std::ceil(*params_.epochs * static_cast<double>(examples) / rows)));
}

Schedule Sft::schedule(const TrainContext& context, std::uint64_t steps) const {
  const bool whole_run = params_.schedule_over == Span::Run && context.rounds > 0;
  return {.shape = params_.schedule,
          .warmup = static_cast<std::uint64_t>(params_.warmup_steps),
          .total = whole_run ? steps * context.rounds : steps,
          .peak = params_.learning_rate,
          .final_fraction = params_.final_fraction};
}

Sft::Step Sft::accumulate(Model& model, DataSource& data, std::uint64_t step) const {
  Step sums;
  for (std::int64_t i = 0; i < params_.accumulation; ++i) {
    if (host_.cancelled()) throw Error("training was cancelled");
    auto batch = data.next(params_.batch);
    if (!batch)
      throw Error("trainer sft: the data source ended; it must go on with another order while it is shuffled");
    sums.documents += static_cast<std::uint64_t>(batch->documents);
    if (batch->counted == 0) continue;
    auto loss = model.loss(*batch);
    const double nats = loss.item<double>();
    if (!std::isfinite(nats))
      throw Error(
          fmt::format("training diverged: the loss of step {} is {}; nothing is sent. Lower learning_rate "
                      "(now {}), add warmup_steps or lower max_grad_norm",
                      step + 1, nats, params_.learning_rate));
    loss.backward();
    sums.nats += nats;
    sums.tokens += static_cast<std::uint64_t>(batch->counted);
  }
  if (sums.tokens == 0) throw Error(fmt::format("trainer sft: no label is counted in step {}", step + 1));
  return sums;
}

TrainResult Sft::train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) {
  const auto parameters = trained(adapter, context.exchange);
  const auto optimizer = make_optimizer(params_, parameters);
  const std::uint64_t planned = steps(data.examples());
  const std::uint64_t enough =
      params_.epochs  // in a packed row there are several documents: count those
          ? static_cast<std::uint64_t>(std::ceil(*params_.epochs * static_cast<double>(data.examples())))
          : std::numeric_limits<std::uint64_t>::max();
  const auto rates = schedule(context, planned);
  const bool whole_run = params_.schedule_over == Span::Run && context.plan.round > 0;
  const std::uint64_t before = whole_run ? (context.plan.round - 1) * planned : 0;

  TrainResult result;
  double nats = 0, first = 0, last = 0;
  clear_gradients(parameters);
  const DropoutScope dropout(model, context.seed);
  for (std::uint64_t step = 0; step < planned && result.examples < enough; ++step) {
    const Step sums = accumulate(model, data, step);
    const double norm = scale_gradients(parameters, 1.0 / static_cast<double>(sums.tokens), params_.max_grad_norm);
    if (!std::isfinite(norm))
      throw Error(
          fmt::format("training diverged: the gradient of step {} is not finite; nothing is sent. Lower "
                      "learning_rate (now {})",
                      step + 1, params_.learning_rate));
    optimizer->step(rates.at(before + step));
    clear_gradients(parameters);
    last = mean(sums.nats, sums.tokens);
    if (step == 0) first = last;
    nats += sums.nats;
    result.tokens += sums.tokens;
    result.examples += sums.documents;
    ++result.steps;
    host_.progress(result.steps, planned);
  }
  result.metrics = {{"loss", mean(nats, result.tokens)}, {"loss_first", first}, {"loss_last", last}};
  return result;
}

}  // namespace hansa::sft

HANSA_PLUGIN(org_hansa_sft, "0.1.0") {
  using namespace hansa;
  using sft::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<sft::Sft, Params>("sft", "Supervised training by AdamW or SGD, some steps a round.")
      .doc(
          "Each round starts with a fresh optimiser state, as plain federated averaging does (arXiv 1602.05629). The "
          "gradient is divided by the counted tokens of the whole accumulation. AdamW: arXiv 1711.05101.")
      .param(&Params::steps, "steps", "Optimiser steps of a round.", at_least(1))
      .param(&Params::epochs, "epochs", "Passes over the silo in a round, instead of steps.", more_than(0))
      .param(&Params::batch, "batch", "Rows of one forward pass.", at_least(1), "rows")
      .param(&Params::accumulation, "accumulation", "Forward passes of one optimiser step.", at_least(1))
      .param(&Params::learning_rate, "learning_rate", "Peak learning rate.", at_least(0))
      .param(&Params::schedule, "schedule", "Shape of the learning rate.", choices({"constant", "cosine", "linear"}))
      .param(&Params::schedule_over, "schedule_over", "What the schedule spans.", choices({"run", "round"}))
      .param(&Params::warmup_steps, "warmup_steps", "Linear rise to the peak, at the schedule's start.", at_least(0),
             "steps")
      .param(&Params::final_fraction, "final_fraction", "Share of the peak that is left at the schedule's end.",
             range(0, 1))
      .param(&Params::optimizer, "optimizer", "The rule of a step.", choices({"adamw", "sgd"}))
      .param(&Params::beta1, "beta1", "AdamW: memory of the mean.", at_least(0), less_than(1))
      .param(&Params::beta2, "beta2", "AdamW: memory of the square.", at_least(0), less_than(1))
      .param(&Params::epsilon, "epsilon", "AdamW: added to the root of the square.", more_than(0))
      .param(&Params::weight_decay, "weight_decay", "AdamW: decoupled; SGD: added to the gradient.", at_least(0))
      .param(&Params::momentum, "momentum", "SGD: memory of the velocity.", at_least(0), less_than(1))
      .param(&Params::max_grad_norm, "max_grad_norm", "Bound of the gradient's L2 norm; 0: none.", at_least(0))
      .check([](const Params& p, Problems& problems) {
        if (p.epochs && p.schedule != sft::Shape::Constant)
          problems.add("epochs", "a schedule needs to know the number of steps, and epochs do not fix it",
                       "give steps instead, or schedule = \"constant\"");
      });
}
