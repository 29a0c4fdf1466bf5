#include "my_plugin.hpp"

#include <cmath>
#include <stdexcept>

#include <ATen/core/grad_mode.h>
#include <hansa/plugin.hpp>

namespace example {
namespace {

std::vector<at::Tensor> trained(hansa::Adapter& adapter, const hansa::Exchange& exchange) {
  std::vector<at::Tensor> parameters;
  for (hansa::Index i = 0; i < exchange.roles.size(); ++i) {
    const bool moves = exchange.roles[i] == hansa::Role::Shared || exchange.roles[i] == hansa::Role::Personal;
    auto parameter = adapter.parameter(i);
    parameter.set_requires_grad(moves);
    if (moves) parameters.push_back(parameter);
  }
  return parameters;
}

}  // namespace

hansa::TrainResult MyPlugin::train(hansa::Model& model, hansa::Adapter& adapter, hansa::DataSource& data,
                                   const hansa::TrainContext& context) {
  const auto parameters = trained(adapter, context.exchange);
  hansa::TrainResult result;
  double nats = 0;
  for (std::int64_t step = 0; step < params_.steps; ++step) {
    if (host_.cancelled()) throw std::runtime_error("the training was cancelled");
    const auto batch = data.next(params_.batch);
    if (!batch || batch->counted == 0) throw std::runtime_error("the data source gave no label to learn from");
    for (auto& parameter : parameters) parameter.mutable_grad() = at::Tensor();
    const auto loss = model.loss(*batch);
    nats += loss.item<double>();
    if (!std::isfinite(nats)) throw std::runtime_error("the training diverged: lower learning_rate");
    loss.div(static_cast<double>(batch->counted)).backward();
    const at::NoGradGuard no_grad;
    for (const auto& parameter : parameters)
      if (parameter.grad().defined()) parameter.sub_(parameter.grad(), params_.learning_rate);
    result.examples += static_cast<std::uint64_t>(batch->documents);
    result.tokens += static_cast<std::uint64_t>(batch->counted);
    ++result.steps;
    host_.progress(result.steps, static_cast<std::uint64_t>(params_.steps));
  }
  result.metrics = {{"loss", result.tokens ? nats / static_cast<double>(result.tokens) : 0}};
  return result;
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Some steps of plain gradient descent.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Params::learning_rate, "learning_rate", "Step along the mean gradient per token.", hansa::more_than(0))
      .param(&Params::steps, "steps", "Steps in a round.", hansa::at_least(1), "steps")
      .param(&Params::batch, "batch", "Rows of a step.", hansa::at_least(1), "rows");
}
