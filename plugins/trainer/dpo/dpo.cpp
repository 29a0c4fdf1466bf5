#include "dpo.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <train/as_at_start.hpp>
#include <train/declare.hpp>

#include "base/error.hpp"

namespace hansa::dpo {

namespace {

// The model without the adapter while it lives.
class Bare {
 public:
  Bare(Model& model, Adapter& adapter) : model_(model), adapter_(adapter) { model_.inject({}); }
  ~Bare() { model_.inject(adapter_.injections()); }
  Bare(const Bare&) = delete;
  Bare& operator=(const Bare&) = delete;

 private:
  Model& model_;
  Adapter& adapter_;
};

// Of each answer: the sum over its labels; for ipo their mean, without which long answers would weigh more.
Answers log_probabilities(const Params& params, Model& model, const Batch& batch) {
  auto nats = model.label_losses(batch).sum(1);
  if (params.loss == Loss::Ipo) nats = nats / batch.labels.ge(0).sum(1).clamp_min(1).to(nats.device());
  const auto pairs = -nats.view({-1, 2});
  return {pairs.select(1, 0), pairs.select(1, 1)};
}

void require_pairs(const Batch& batch) {
  if (batch.task != Task::Preference)
    throw Error(
        "dpo learns from pairs of a better and a worse answer, and the data source gives single texts; use one that "
        "gives "
        "pairs, or another trainer");
  if (batch.tokens.size(0) % 2 != 0) throw Error("dpo: a batch of pairs has an odd number of rows");
}

}  // namespace

PairLosses pair_losses(const Params& params, const Answers& policy, const Answers& reference) {
  const auto better = policy.better - reference.better, worse = policy.worse - reference.worse;
  const auto gap = better - worse;
  at::Tensor losses;
  if (params.loss == Loss::Ipo) {
    const auto off = gap - 1 / (2 * params.beta);
    losses = off * off;
  } else {
    losses = -at::log_sigmoid(gap * params.beta) * (1 - params.label_smoothing);
    if (params.label_smoothing > 0) losses = losses - at::log_sigmoid(-gap * params.beta) * params.label_smoothing;
  }
  return {losses, (gap * params.beta).detach()};
}

// Of a pair both rows are in the same batch.
std::uint64_t Dpo::steps(std::uint64_t examples) const { return train::steps_of(params_, 2 * examples); }

TrainResult Dpo::train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) {
  const auto what = train::trained(adapter, context.exchange);
  std::vector<at::Tensor> start;
  if (params_.reference == Reference::RoundStart) start = train::copies_of(what.parameters);

  const auto reference_of = [&](const Batch& batch, train::Dropout& dropout) {
    const at::NoGradGuard no_grad;
    const train::Dropout::Off off(dropout);
    if (params_.reference == Reference::RoundStart) {
      const train::AsAtStart swapped(what.parameters, start);
      return log_probabilities(params_, model, batch);
    }
    const Bare bare(model, adapter);
    return log_probabilities(params_, model, batch);
  };
  const auto objective = [&](Model&, const Batch& batch, train::Dropout& dropout) -> train::Found {
    require_pairs(batch);
    const auto reference = reference_of(batch, dropout);
    const auto [losses, rewards] = pair_losses(params_, log_probabilities(params_, model, batch), reference);
    return {losses.sum(),
            static_cast<std::uint64_t>(losses.size(0)),
            {{"reward_margin", rewards.sum().item<double>()}, {"reward_accuracy", rewards.gt(0).sum().item<double>()}}};
  };
  return train::run(params_, host_, model, adapter, data, context, {}, objective);
}

}  // namespace hansa::dpo

HANSA_PLUGIN(org_hansa_dpo, "0.1.0") {
  using namespace hansa;
  using dpo::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component = plugin.add<dpo::Dpo, Params>(
      "dpo",
      "Learns from pairs of a better and a worse answer (direct preference optimisation), without a second model.");
  train::declare(component)
      .param(&Params::beta, "beta", "How strongly the reference holds the model.", more_than(0))
      .param(&Params::label_smoothing, "label_smoothing",
             "Share of the pairs that may be the wrong way round; for loss = \"sigmoid\".", at_least(0), less_than(0.5))
      .param(&Params::loss, "loss", "What is minimised over the gap of the rewards.", choices({"sigmoid", "ipo"}))
      .param(&Params::reference, "reference",
             "What the model is held near: the base without the adapter, or what the round began with.",
             choices({"base", "round_start"}))
      .check([](const Params& p, Problems& problems) {
        if (p.batch % 2 != 0)
          problems.add("batch", "a pair is two rows, and both are in one batch", "give an even number");
        if (p.label_smoothing > 0 && p.loss == dpo::Loss::Ipo)
          problems.add("label_smoothing", "loss = \"ipo\" has none", "leave it out");
      })
      .doc(
          "arXiv 2305.18290; label smoothing as in cDPO (its authors' note), ipo: arXiv 2310.12036 with "
          "log-probabilities "
          "averaged over an answer's tokens. A row is one answer, so `batch` is twice the number of pairs. loss, "
          "loss_first and loss_last are means per pair; reported besides: reward_margin, beta times the mean gap of "
          "the "
          "log-ratios, and reward_accuracy, the share of pairs in which the better answer's ratio is larger.");
}
