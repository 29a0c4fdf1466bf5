#include "train/loop.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "train/guard.hpp"
#include "train/held_out.hpp"
#include "train/team.hpp"

#include "base/error.hpp"
#include "base/rng.hpp"

namespace hansa::train {

namespace {

std::unique_ptr<Optimizer> make_optimizer(const Params& p, const Trained& what) {
  return at_rates(
      what.parameters, what.rates, [&](const std::vector<at::Tensor>& parameters) -> std::unique_ptr<Optimizer> {
        if (p.optimizer == Rule::Sgd) return sgd(parameters, {.momentum = p.momentum, .weight_decay = p.weight_decay});
        return adamw(parameters,
                     {.beta1 = p.beta1, .beta2 = p.beta2, .epsilon = p.epsilon, .weight_decay = p.weight_decay});
      });
}

Schedule schedule_of(const Params& p, const TrainContext& context, std::uint64_t steps) {
  const bool whole_run = p.schedule_over == Span::Run && context.rounds > 0;
  return {.shape = p.schedule,
          .warmup = static_cast<std::uint64_t>(p.warmup_steps),
          .total = whole_run ? steps * context.rounds : steps,
          .peak = p.learning_rate,
          .final_fraction = p.final_fraction};
}

struct Step {  // sums over its micro-batches
  double sum = 0;
  std::uint64_t units = 0, tokens = 0, documents = 0;
  Metrics sums;
  double mean() const { return units == 0 ? 0 : sum / static_cast<double>(units); }
  void add(const Step& other) {
    sum += other.sum;
    units += other.units;
    tokens += other.tokens;
    documents += other.documents;
    add(other.sums);
  }
  void add(const Metrics& more) {
    for (const auto& [name, value] : more) {
      const auto at = std::ranges::find(sums, name, &Metrics::value_type::first);
      if (at == sums.end())
        sums.emplace_back(name, value);
      else
        at->second += value;
    }
  }
};

// A round of one silo, from the first batch to the last.
class Turn {
 public:
  Turn(const Params& params, Host& host, Model& model, DataSource& data, const TrainContext& context, Trained what,
       const Hook& hook, const Objective& objective)
      : params_(params),
        host_(host),
        model_(model),
        data_(data),
        context_(context),
        what_(std::move(what)),
        hook_(hook),
        objective_(objective),
        optimizer_(make_optimizer(params, what_)),
        guard_(params),
        team_(context.peers, what_.parameters) {
    if (params.held_out > 0) team_.together([&] { hold_out(); });
    clear_gradients(what_.parameters);
  }

  TrainResult go() {
    const std::uint64_t planned = steps_of(params_, data_.examples());
    const double examples = static_cast<double>(data_.examples()) * (1 - params_.held_out);
    const std::uint64_t enough = params_.epochs  // in a packed row there are several documents: count those
                                     ? static_cast<std::uint64_t>(std::ceil(*params_.epochs * examples))
                                     : std::numeric_limits<std::uint64_t>::max();
    const auto rates = schedule_of(params_, context_, planned);
    const bool whole_run = params_.schedule_over == Span::Run && context_.plan.round > 0;
    const std::uint64_t before = whole_run ? (context_.plan.round - 1) * planned : 0;

    Dropout dropout(model_, team_.dropout_seed(context_.seed));
    Step all;
    double first = 0, last = 0;
    if (held_out_) check(dropout);
    while (steps_ < planned && all.documents < enough && !stopped()) {
      const Step step = accumulate(dropout);
      const double norm = finish_gradients(step.units);
      if (!std::isfinite(norm)) guard_.refuse(steps_ + 1, "the norm of the gradient", norm);
      optimizer_->step(rates.at(before + steps_));
      clear_gradients(what_.parameters);
      last = step.mean();
      if (steps_ == 0) first = last;
      all.add(step);
      ++steps_;
      host_.progress(steps_, planned);
      if (held_out_ && steps_ % static_cast<std::uint64_t>(params_.check_every) == 0) check(dropout);
    }
    finish(dropout);
    team_.sum(all.sums);
    TrainResult result{
        all.documents, all.tokens, steps_, {{"loss", all.mean()}, {"loss_first", first}, {"loss_last", last}}};
    for (const auto& [name, sum] : all.sums) result.metrics.emplace_back(name, sum / static_cast<double>(all.units));
    if (held_out_) {
      result.metrics.emplace_back("held_out_first", first_check_);
      result.metrics.emplace_back("held_out_best", best_check_);
      result.metrics.emplace_back("steps_kept", static_cast<double>(best_at_));
    }
    return result;
  }

 private:
  // ---- batches

  void hold_out() {
    held_out_.emplace(data_, params_.held_out, derive_seed(host_.seed("held_out"), "node", {context_.node}),
                      params_.held_out_most, params_.batch);
    data_.shuffle(context_.seed);
  }

  Batch next() {
    for (int empty = 0; empty < kMostEmpty; ++empty) {
      if (host_.cancelled()) throw Error("training was cancelled");
      auto batch = data_.next(params_.batch);
      if (!batch) throw Error("the data source ended; it must go on with another order while it is shuffled");
      if (held_out_) batch = held_out_->rest_of(*batch);
      if (batch) return std::move(*batch);
    }
    throw Error(
        fmt::format("held_out = {} left nothing of {} batches to train on; lower it", params_.held_out, kMostEmpty));
  }

  // Documents and tokens are the whole batch's, whoever works on its rows; sum, units and sums are this process's.
  void add_batch(Step& sums, Dropout& dropout) {
    const auto whole = next();
    team_.saw(whole);
    sums.documents += static_cast<std::uint64_t>(whole.documents);
    if (whole.counted == 0) return;
    sums.tokens += static_cast<std::uint64_t>(whole.counted);
    last_batch_ = team_.part_of(whole);
    if (last_batch_->counted == 0) return;
    auto found = objective_(model_, *last_batch_, dropout);
    const double sum = found.sum.item<double>();
    if (!std::isfinite(sum)) guard_.see(steps_ + 1, sum);
    found.sum.backward();
    sums.sum += sum;
    sums.units += found.units;
    sums.add(found.sums);
  }

  // The sums of a step over all its batches, and the parameters' gradients.
  Step accumulate(Dropout& dropout) {
    Step sums;
    team_.together([&] {
      for (std::int64_t i = 0; i < params_.accumulation; ++i) add_batch(sums, dropout);
    });
    std::array<double, 2> shared{sums.sum, static_cast<double>(sums.units)};
    team_.sum_gradients(shared);
    sums.sum = shared[0];
    sums.units = static_cast<std::uint64_t>(shared[1]);
    if (sums.units == 0) throw Error(fmt::format("no label is counted in step {}", steps_ + 1));
    guard_.see(steps_ + 1, sums.mean());
    return sums;
  }

  // The mean per unit, the hook, the clip. Returns the norm before the clip.
  double finish_gradients(std::uint64_t units) {
    double factor = 1.0 / static_cast<double>(units);
    if (hook_) {
      scale_gradients(what_.parameters, factor, 0);
      hook_(what_);
      factor = 1;
    }
    return scale_gradients(what_.parameters, factor, params_.max_grad_norm);
  }

  // ---- what the steps led to

  void quietly(const Batch& batch, Dropout& dropout, Step& to) {
    if (batch.counted == 0) return;
    const at::NoGradGuard no_grad;
    const Dropout::Off off(dropout);
    const auto found = objective_(model_, batch, dropout);
    to.add({.sum = found.sum.item<double>(), .units = found.units});
  }
  double mean_over_all(const Step& own) const {
    std::array<double, 2> shared{own.sum, static_cast<double>(own.units)};
    team_.sum(shared);
    return shared[1] == 0 ? 0 : shared[0] / shared[1];
  }

  // The held-out loss, and whether it is the best so far.
  void check(Dropout& dropout) {
    Step own;
    team_.together([&] {
      for (std::size_t i = 0; i < held_out_->batches().size(); ++i) {
        if (host_.cancelled()) throw Error("training was cancelled");
        if (team_.mine(i)) quietly(held_out_->batches()[i], dropout, own);
      }
    });
    const double loss = mean_over_all(own);
    if (!std::isfinite(loss)) guard_.refuse(steps_, "the held-out loss", loss);
    checked_at_ = steps_;
    if (steps_ == 0) first_check_ = loss;
    if (best_.empty() || loss < best_check_) {
      best_check_ = loss;
      best_at_ = steps_;
      best_.clear();
      for (const auto& parameter : what_.parameters) best_.push_back(parameter.detach().clone());
      checks_without_ = 0;
    } else {
      ++checks_without_;
    }
  }
  bool stopped() const { return held_out_ && checks_without_ >= params_.patience; }

  // What the last step did shows in no loss yet; and of all states the best one is to stay.
  void finish(Dropout& dropout) {
    if (held_out_ && checked_at_ != steps_) check(dropout);
    if (guard_.watches() && last_batch_) {
      Step own;
      team_.together([&] { quietly(*last_batch_, dropout, own); });
      guard_.see_last(steps_, mean_over_all(own));
    }
    if (!held_out_ || best_at_ == steps_) return;
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < best_.size(); ++i) what_.parameters[i].copy_(best_[i]);
  }

  static constexpr int kMostEmpty = 1000;
  const Params& params_;
  Host& host_;
  Model& model_;
  DataSource& data_;
  const TrainContext& context_;
  const Trained what_;
  const Hook& hook_;
  const Objective& objective_;
  const std::unique_ptr<Optimizer> optimizer_;
  Guard guard_;
  Team team_;
  std::optional<HeldOut> held_out_;
  std::optional<Batch> last_batch_;  // with a counted label, as far as its rows are this process's
  std::uint64_t steps_ = 0;
  std::vector<at::Tensor> best_;  // beside the parameters
  std::uint64_t best_at_ = 0, checked_at_ = 0;
  std::int64_t checks_without_ = 0;
  double first_check_ = 0, best_check_ = 0;
};

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

void Dropout::on() {
  model_.enable_dropout(times_ == 0 ? seed_ : derive_seed(seed_, "dropout", {times_}));
  ++times_;
  on_ = true;
}
void Dropout::off() {
  model_.disable_dropout();
  on_ = false;
}

void require_single_texts(const Batch& batch) {
  if (batch.task == Task::Preference)
    throw Error(
        "the data source gives pairs of a better and a worse answer, and this trainer would learn both; use a trainer "
        "for "
        "preferences, or a data source that gives single texts");
}

Found model_loss(Model& model, const Batch& batch, Dropout&) {
  require_single_texts(batch);
  return {model.loss(batch), static_cast<std::uint64_t>(batch.counted), {}};
}

TrainResult run(const Params& params, Host& host, Model& model, Adapter& adapter, DataSource& data,
                const TrainContext& context, const Hook& hook, const Objective& objective) {
  return Turn(params, host, model, data, context, trained(adapter, context.exchange), hook, objective).go();
}

}  // namespace hansa::train
