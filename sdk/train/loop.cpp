#include "train/loop.hpp"

#include <cmath>
#include <limits>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::train {

namespace {

std::unique_ptr<Optimizer> make_optimizer(const Params& p, const std::vector<at::Tensor>& parameters) {
  if (p.optimizer == Rule::Sgd) return sgd(parameters, {.momentum = p.momentum, .weight_decay = p.weight_decay});
  return adamw(parameters, {.beta1 = p.beta1, .beta2 = p.beta2, .epsilon = p.epsilon, .weight_decay = p.weight_decay});
}

Schedule schedule_of(const Params& p, const TrainContext& context, std::uint64_t steps) {
  const bool whole_run = p.schedule_over == Span::Run && context.rounds > 0;
  return {.shape = p.schedule,
          .warmup = static_cast<std::uint64_t>(p.warmup_steps),
          .total = whole_run ? steps * context.rounds : steps,
          .peak = p.learning_rate,
          .final_fraction = p.final_fraction};
}

// Dropout is on for the length of a training, however it ends.
class DropoutScope {
 public:
  DropoutScope(Model& model, std::uint64_t seed) : model_(model) { model_.enable_dropout(seed); }
  ~DropoutScope() { model_.disable_dropout(); }

 private:
  Model& model_;
};

struct Step {  // sums over its micro-batches
  double nats = 0;
  std::uint64_t tokens = 0, documents = 0;
};

Step accumulate(const Params& params, Host& host, Model& model, DataSource& data, std::uint64_t step) {
  Step sums;
  for (std::int64_t i = 0; i < params.accumulation; ++i) {
    if (host.cancelled()) throw Error("training was cancelled");
    auto batch = data.next(params.batch);
    if (!batch) throw Error("the data source ended; it must go on with another order while it is shuffled");
    sums.documents += static_cast<std::uint64_t>(batch->documents);
    if (batch->counted == 0) continue;
    auto loss = model.loss(*batch);
    const double nats = loss.item<double>();
    if (!std::isfinite(nats))
      throw Error(
          fmt::format("training diverged: the loss of step {} is {}; nothing is sent. Lower learning_rate "
                      "(now {}), add warmup_steps or lower max_grad_norm",
                      step + 1, nats, params.learning_rate));
    loss.backward();
    sums.nats += nats;
    sums.tokens += static_cast<std::uint64_t>(batch->counted);
  }
  if (sums.tokens == 0) throw Error(fmt::format("no label is counted in step {}", step + 1));
  return sums;
}

// The mean per token, the hook, the clip. Returns the norm before the clip.
double finish_gradients(const Params& params, const Trained& what, std::uint64_t tokens, const Hook& hook) {
  double factor = 1.0 / static_cast<double>(tokens);
  if (hook) {
    scale_gradients(what.parameters, factor, 0);
    hook(what);
    factor = 1;
  }
  return scale_gradients(what.parameters, factor, params.max_grad_norm);
}

double mean(double nats, std::uint64_t tokens) { return tokens == 0 ? 0 : nats / static_cast<double>(tokens); }

}  // namespace

std::uint64_t steps_of(const Params& params, std::uint64_t examples) {
  if (!params.epochs) return static_cast<std::uint64_t>(params.steps);
  const double rows = static_cast<double>(params.batch * params.accumulation);
  return std::max<std::uint64_t>(
      1, static_cast<std::uint64_t>(std::ceil(*params.epochs * static_cast<double>(examples) / rows)));
}

Trained trained(Adapter& adapter, const Exchange& exchange) {
  Trained all;
  for (Index i = 0; i < exchange.roles.size(); ++i) {
    auto parameter = adapter.parameter(i);
    const bool moves = exchange.roles[i] == Role::Shared || exchange.roles[i] == Role::Personal;
    parameter.set_requires_grad(moves);
    if (!moves) continue;
    all.indices.push_back(i);
    all.parameters.push_back(parameter);
    all.rates.push_back(adapter.rate(i));
  }
  if (all.parameters.empty()) throw Error("the exchange leaves no parameter to train");
  return all;
}

TrainResult run(const Params& params, Host& host, Model& model, Adapter& adapter, DataSource& data,
                const TrainContext& context, const Hook& hook) {
  const auto what = trained(adapter, context.exchange);
  const auto optimizer =
      at_rates(what.parameters, what.rates, [&](const auto& parameters) { return make_optimizer(params, parameters); });
  const std::uint64_t planned = steps_of(params, data.examples());
  const std::uint64_t enough =
      params.epochs  // in a packed row there are several documents: count those
          ? static_cast<std::uint64_t>(std::ceil(*params.epochs * static_cast<double>(data.examples())))
          : std::numeric_limits<std::uint64_t>::max();
  const auto rates = schedule_of(params, context, planned);
  const bool whole_run = params.schedule_over == Span::Run && context.plan.round > 0;
  const std::uint64_t before = whole_run ? (context.plan.round - 1) * planned : 0;

  TrainResult result;
  double nats = 0, first = 0, last = 0;
  clear_gradients(what.parameters);
  const DropoutScope dropout(model, context.seed);
  for (std::uint64_t step = 0; step < planned && result.examples < enough; ++step) {
    const Step sums = accumulate(params, host, model, data, step);
    const double norm = finish_gradients(params, what, sums.tokens, hook);
    if (!std::isfinite(norm))
      throw Error(
          fmt::format("training diverged: the gradient of step {} is not finite; nothing is sent. Lower "
                      "learning_rate (now {})",
                      step + 1, params.learning_rate));
    optimizer->step(rates.at(before + step));
    clear_gradients(what.parameters);
    last = mean(sums.nats, sums.tokens);
    if (step == 0) first = last;
    nats += sums.nats;
    result.tokens += sums.tokens;
    result.examples += sums.documents;
    ++result.steps;
    host.progress(result.steps, planned);
  }
  result.metrics = {{"loss", mean(nats, result.tokens)}, {"loss_first", first}, {"loss_last", last}};
  return result;
}

}  // namespace hansa::train
