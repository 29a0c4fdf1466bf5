// Privacy mechanisms, server optimisers, selectors and round policies with one bug each.
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <hansa/plugin.hpp>
#include <hansa/privacy.hpp>
#include <hansa/selection.hpp>
#include <hansa/server_optimizer.hpp>

namespace planted {
using namespace hansa;

// ---- privacy -------------------------------------------------------------------------------------------------------------

class Noise : public Stateless<Privacy> {
 public:
  double clip_bound(const RoundPlan&) const override { return 0.5; }
  std::optional<DpEvent> event(const RoundPlan& plan) const override {
    return DpEvent{"gaussian", 1.5, plan.sampling_rate, 1, plan.adjacency};
  }
  void begin_release(const RoundPlan&, const Sensitivity& sensitivity) override { sigma_ = 1.5 * sensitivity.l2; }
  void central(std::string_view, Index, at::Tensor& sum, SecureRng& rng) override {
    sum.add_(rng.gaussian(sum.sizes(), sigma_));
  }

 protected:
  double sigma_ = 0;
};
class UnderstatesItsSpend final : public Noise {  // the noise is for the clip bound, not for the sum's sensitivity
  void begin_release(const RoundPlan&, const Sensitivity& sensitivity) override {
    sigma_ = 1.5 * sensitivity.l2 / sensitivity.largest_weight;
  }
};
class ForgetsTheEvent final : public Noise {
  std::optional<DpEvent> event(const RoundPlan&) const override { return std::nullopt; }
};
class FlattersTheRate final : public Noise {
  std::optional<DpEvent> event(const RoundPlan& plan) const override {
    return DpEvent{"gaussian", 1.5, plan.sampling_rate / 2, 1, plan.adjacency};
  }
};
class OwnGenerator final : public Noise {
  void central(std::string_view, Index, at::Tensor& sum, SecureRng&) override {
    std::mt19937 engine(1);
    std::normal_distribution<float> normal(0, static_cast<float>(sigma_));
    auto noise = at::empty(sum.sizes());
    for (std::int64_t i = 0; i < noise.numel(); ++i) noise.mutable_data_ptr<float>()[i] = normal(engine);
    sum.add_(noise);
  }
};
class NoiseFollowsValues final : public Noise {
  void central(std::string_view, Index, at::Tensor& sum, SecureRng& rng) override {
    sum.add_(rng.gaussian(sum.sizes(), sigma_).mul_(sum.abs().add(1)));
  }
};
class NotGaussian final : public Noise {  // uniform noise of the same deviation, called gaussian
  void central(std::string_view, Index, at::Tensor& sum, SecureRng& rng) override {
    const auto normal = rng.gaussian(sum.sizes(), 1);
    sum.add_(normal.div(std::sqrt(2.0)).erf().mul(std::sqrt(3.0) * sigma_));
  }
};
class ClaimsWithoutAClip final : public Noise {
  double clip_bound(const RoundPlan&) const override { return std::numeric_limits<double>::infinity(); }
};

// ---- server optimisers ---------------------------------------------------------------------------------------------------

class Add : public Stateless<ServerOptimizer> {
 public:
  std::vector<TensorSpec> state(const TensorSpec&) const override { return {}; }
  void step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta, std::span<at::Tensor>) override {
    parameter.add_(delta);
  }
};
class Descends final : public Add {  // takes the change for a gradient
  void step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta, std::span<at::Tensor>) override {
    parameter.sub_(delta);
  }
};
class MixesTensors final : public Add {
  void step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta, std::span<at::Tensor>) override {
    const double norm = delta.numel() ? delta.norm().item<double>() : 0;
    largest_ = std::max(largest_, norm);
    if (largest_ > 0) parameter.add_(delta, norm / largest_);
  }
  void begin_step(Round) override { largest_ = 0; }
  double largest_ = 0;
};
class PlainAndMore final : public Add {
  void step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta, std::span<at::Tensor>) override {
    parameter.add_(delta).mul_(0.99);
  }
};
class QuietMomentum final : public Add {  // the host keeps it; it does not declare KeepsHistory
  std::vector<TensorSpec> state(const TensorSpec& parameter) const override {
    return {{"speed", DType::f32, parameter.shape}};
  }
  void step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta,
            std::span<at::Tensor> state) override {
    parameter.add_(state[0].mul_(0.5).add_(delta));
  }
};
class MovesAtRest final : public Add {
  void step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta, std::span<at::Tensor>) override {
    parameter.add_(delta).add_(1e-3);
  }
};

// ---- selectors -----------------------------------------------------------------------------------------------------------

class Coins : public Stateless<Selector> {
 public:
  double expected_cohort(std::size_t population) const override { return 0.3 * static_cast<double>(population); }
  double sampling_rate(std::size_t) const override { return 0.3; }
  std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng& draw) override {
    std::vector<NodeId> chosen;
    for (const auto& node : registered)
      if (draw.uniform() < 0.3) chosen.push_back(node.node);
    return chosen;
  }
};
class OnlyInPairs final : public Coins {  // the right rate, but neighbours come together
  std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng& draw) override {
    std::vector<NodeId> chosen;
    bool take = false;
    for (std::size_t i = 0; i < registered.size(); ++i) {
      if (i % 2 == 0) take = draw.uniform() < 0.3;
      if (take) chosen.push_back(registered[i].node);
    }
    return chosen;
  }
};
class PlansWrongly final : public Coins {
  double expected_cohort(std::size_t population) const override { return 0.35 * static_cast<double>(population); }
};
class WrongOrder final : public Coins {
  std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng& draw) override {
    auto chosen = Coins::choose(registered, draw);
    std::reverse(chosen.begin(), chosen.end());
    return chosen;
  }
};
class ClaimsARate final : public Coins {};  // without declaring Poisson
class LeavesOneOut final : public Stateless<Selector> {
 public:
  double expected_cohort(std::size_t population) const override {
    return static_cast<double>(population < 3 ? population : population - 1);
  }
  double sampling_rate(std::size_t) const override { return 1; }
  std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng&) override {
    std::vector<NodeId> chosen;
    for (const auto& node : registered) chosen.push_back(node.node);
    if (chosen.size() > 2) chosen.pop_back();
    return chosen;
  }
};

// ---- round policies ------------------------------------------------------------------------------------------------------

class WaitsForAll : public Stateless<RoundPolicy> {
 public:
  Next decide(const RoundStatus& status) override {
    if (status.running > 0) return Next::Wait;
    return status.accepted > 0 ? Next::Close : Next::Abort;
  }
  double deadline_seconds() const override { return std::numeric_limits<double>::infinity(); }
};
class WaitsForEver final : public WaitsForAll {  // for a node that was refused
  Next decide(const RoundStatus& status) override {
    return status.accepted == status.cohort ? Next::Close : Next::Wait;
  }
};
class ForgetsItsDeadline final : public WaitsForAll {
  double deadline_seconds() const override { return 60; }
};
class ClosesAtHalf final : public WaitsForAll {
  Next decide(const RoundStatus& status) override {
    return status.accepted * 2 >= status.cohort ? Next::Close : WaitsForAll::decide(status);
  }
};

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_rounds, "0.1.0") {
  using namespace planted;
  constexpr const char* kRight = "Nothing is wrong with it.";
  plugin.add<Noise>("right_noise", kRight).traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<UnderstatesItsSpend>("understates_its_spend", "Less noise than the event says.")
      .traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<ForgetsTheEvent>("forgets_the_event", "Noise without an event.").traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<FlattersTheRate>("flatters_the_rate", "Charges half of the sampling rate.")
      .traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<OwnGenerator>("own_generator", "Noise from a generator with a fixed seed.")
      .traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<NoiseFollowsValues>("noise_follows_values", "Large values get more noise.")
      .traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<NotGaussian>("not_gaussian", "Uniform noise that is called gaussian.").traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<ClaimsWithoutAClip>("claims_without_a_clip", "A guarantee without a bound.")
      .traits(HANSA_TRAIT_CENTRAL_NOISE);
  plugin.add<Add>("right_add", kRight).traits(HANSA_TRAIT_PLAIN_AVERAGING);
  plugin.add<Descends>("descends", "Goes the other way.");
  plugin.add<MixesTensors>("mixes_tensors", "The norm of one tensor changes the next one's step.");
  plugin.add<PlainAndMore>("plain_and_more", "Declares PlainAveraging and decays.").traits(HANSA_TRAIT_PLAIN_AVERAGING);
  plugin.add<QuietMomentum>("quiet_momentum", "Has a momentum and does not declare KeepsHistory.");
  plugin.add<MovesAtRest>("moves_at_rest", "Drifts without an aggregate.");
  plugin.add<Coins>("right_coins", kRight).traits(HANSA_TRAIT_POISSON);
  plugin.add<OnlyInPairs>("only_in_pairs", "Declares Poisson and draws neighbours together.")
      .traits(HANSA_TRAIT_POISSON);
  plugin.add<PlansWrongly>("plans_wrongly", "Another expected cohort than it draws.").traits(HANSA_TRAIT_POISSON);
  plugin.add<WrongOrder>("wrong_order", "Descending node ids.").traits(HANSA_TRAIT_POISSON);
  plugin.add<ClaimsARate>("claims_a_rate", "A sampling rate below 1 without declaring Poisson.");
  plugin.add<LeavesOneOut>("leaves_one_out", "Declares Everyone and drops the last.").traits(HANSA_TRAIT_EVERYONE);
  plugin.add<WaitsForAll>("right_wait", kRight);
  plugin.add<WaitsForEver>("waits_for_ever", "Waits for a node that was refused.");
  plugin.add<ForgetsItsDeadline>("forgets_its_deadline", "Waits beyond its own deadline.")
      .traits(HANSA_TRAIT_CLOSES_EARLY);
  plugin.add<ClosesAtHalf>("closes_at_half", "Closes with nodes running and does not say so.");
}
