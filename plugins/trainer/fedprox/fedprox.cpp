#include "fedprox.hpp"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros_like.h>
#include <train/as_at_start.hpp>
#include <train/declare.hpp>

namespace hansa::fedprox {

namespace {

double distance(const std::vector<at::Tensor>& from, const std::vector<at::Tensor>& to) {
  const at::NoGradGuard no_grad;
  double square = 0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const double norm = at::linalg_vector_norm(to[i].detach() - from[i]).item<double>();
    square += norm * norm;
  }
  return std::sqrt(square);
}

}  // namespace

TrainResult FedProx::train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) {
  const auto what = train::trained(adapter, context.exchange);
  const auto start = train::copies_of(what.parameters);
  train::Hook pull;
  if (params_.mu > 0)  // without it the loop is sft's to the last bit
    pull = [&](const train::Trained& moving) {
      const at::NoGradGuard no_grad;
      for (std::size_t i = 0; i < start.size(); ++i) {
        auto parameter = moving.parameters[i];
        auto& gradient = parameter.mutable_grad();
        if (!gradient.defined()) gradient = at::zeros_like(parameter.detach());
        gradient.add_(parameter.detach() - start[i], params_.mu);
      }
    };
  auto result = train::run(params_, host_, model, adapter, data, context, pull);
  const double drift = distance(start, what.parameters);
  result.metrics.emplace_back("drift", drift);
  result.metrics.emplace_back("proximal", 0.5 * params_.mu * drift * drift);
  return result;
}

}  // namespace hansa::fedprox

HANSA_PLUGIN(org_hansa_fedprox, "0.1.0") {
  using namespace hansa;
  using fedprox::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component = plugin.add<fedprox::FedProx, Params>(
      "fedprox", "Gradient descent with a pull towards the model that the round began with (FedProx).");
  train::declare(component)
      .param(&Params::mu, "mu", "Strength of the pull; 0: as sft.", at_least(0))
      .doc(
          "arXiv 1812.06127. A client minimises its loss plus mu/2 times the squared distance of the trained tensors "
          "from "
          "where they stood when the round began; the gradient mu (w - w_start) is added before the clip. Reported "
          "besides: drift, that distance at the end, and proximal, the term's value.");
}
