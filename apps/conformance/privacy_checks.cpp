// What a privacy mechanism promises: its bound, its noise, and an event that says no less than what was spent.
#include <cmath>
#include <limits>
#include <random>

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <hansa/privacy.hpp>

#include "conformance/driver.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

// The host's generator with a seed, so that a check sees the same noise again; counts what was drawn.
class CountedNoise final : public SecureRng {
 public:
  explicit CountedNoise(std::uint64_t seed) : seed_(seed) {}
  at::Tensor gaussian(at::IntArrayRef shape, double sigma) override {
    auto made = random_tensor(shape.vec(), seed_ * 7919 + ++draws_, sigma);
    elements_ += static_cast<std::uint64_t>(made.numel());
    return made;
  }
  std::uint64_t elements() const { return elements_; }

 private:
  std::uint64_t seed_, draws_ = 0, elements_ = 0;
};

constexpr double kLargestWeight = 2;

RoundPlan plan_of(const Case& input, double sampling_rate = 0.1) {
  RoundPlan plan;
  plan.round = input.round;
  plan.base = input.round - 1;
  plan.population = 100;
  plan.sampling_rate = sampling_rate;
  plan.expected_cohort = sampling_rate * 100;
  return plan;
}
std::string plan_text(const RoundPlan& plan) {
  return fmt::format("round {}, a population of {}, sampling rate {}", plan.round, plan.population, plan.sampling_rate);
}
Sensitivity sensitivity_of(double bound, const RoundPlan& plan) {
  return {bound * kLargestWeight, kLargestWeight, plan.expected_cohort};
}
std::vector<std::vector<std::int64_t>> update_shapes(int size) {
  static const std::vector<std::vector<std::int64_t>> by_size[] = {
      {{1}}, {{}, {4}}, {{0}, {3, 5}}, {{64}, {2, 3, 4}}, {{40, 50}}};
  return by_size[size];
}

struct Release {
  std::vector<at::Tensor> local, central;
};
Release release(Privacy& mechanism, const Case& input, SecureRng& noise, const std::vector<at::Tensor>& values) {
  const auto plan = plan_of(input);
  Release out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    auto delta = values[i].clone();
    mechanism.local(kAdapterChannel, static_cast<Index>(i), delta, noise);
    out.local.push_back(delta);
  }
  mechanism.begin_release(plan, sensitivity_of(mechanism.clip_bound(plan), plan));
  for (std::size_t i = 0; i < values.size(); ++i) {
    auto sum = values[i].clone();
    mechanism.central(kAdapterChannel, static_cast<Index>(i), sum, noise);
    out.central.push_back(sum);
  }
  mechanism.end_release();
  return out;
}
std::vector<at::Tensor> values_of(const Case& input) {
  std::vector<at::Tensor> values;
  for (const auto& shape : update_shapes(input.size))
    values.push_back(random_tensor(shape, input.seed + values.size()));
  return values;
}

class PrivacyDriver final : public Driver {
 public:
  PrivacyDriver(const Subject& subject, const Value& params, std::uint64_t run_seed)
      : mechanism_(subject.make_with<Privacy>(params, run_seed)) {}
  Component& component() override { return *mechanism_; }
  NamedTensors play(const Case& input) override {
    CountedNoise noise(input.seed + 1000 * input.round);
    const auto out = release(*mechanism_, input, noise, values_of(input));
    NamedTensors trace;
    for (const auto& tensor : out.local) trace.emplace_back("a node's change", tensor);
    for (const auto& tensor : out.central) trace.emplace_back("the sum", tensor);
    if (const double bound = mechanism_->clip_bound(plan_of(input)); std::isfinite(bound))
      trace.emplace_back("clip bound", number(bound));
    if (const auto event = mechanism_->event(plan_of(input)))
      trace.emplace_back("noise multiplier", number(event->noise_multiplier));
    return trace;
  }
  void leave_half_way(const Case& input) override {
    const auto plan = plan_of(input);
    mechanism_->begin_release(plan, sensitivity_of(1, plan));
  }
  std::string describe(const Case& input) const override {
    return fmt::format("tensors {}", shapes_text(update_shapes(input.size)));
  }

 private:
  Instance<Privacy> mechanism_;
};

void bound(const Subject& subject) {
  const auto mechanism = subject.make<Privacy>();
  for (Round round = 1; round <= 5; ++round) {
    const auto plan = plan_of({1, 0, round});
    with_input(subject, subject.seed, plan_text(plan), [&] {
      const double clip = mechanism->clip_bound(plan);
      hold(clip > 0,
           fmt::format("the clip bound of round {} is {}; it has to be positive (infinity: no clipping)", round, clip));
      hold(clip == mechanism->clip_bound(plan), "two questions for the clip bound of one round gave two answers");
      hold(mechanism->event(plan) == mechanism->event(plan),
           "two questions for the event of one round gave two answers");
      hold(std::isfinite(clip) || !mechanism->event(plan), "it claims a guarantee without a clip bound");
    });
  }
}

constexpr std::int64_t kMany = 200000;

// The noise that one release really adds, alone.
at::Tensor noise_of(Privacy& mechanism, const RoundPlan& plan, const at::Tensor& sum, CountedNoise& noise,
                    bool central) {
  auto noised = sum.clone();
  if (central) {
    mechanism.begin_release(plan, sensitivity_of(mechanism.clip_bound(plan), plan));
    mechanism.central(kAdapterChannel, 0, noised, noise);
    mechanism.end_release();
  } else {
    mechanism.local(kAdapterChannel, 0, noised, noise);
  }
  return noised.sub(sum).to(at::kDouble);
}
struct Moments {
  double mean, deviation, kurtosis;
};
Moments moments_of(const at::Tensor& values) {
  const double mean = values.mean().item<double>();
  const auto centred = values.sub(mean);
  const double variance = centred.square().mean().item<double>();
  const double fourth = centred.square().square().mean().item<double>();
  return {mean, std::sqrt(variance), variance > 0 ? fourth / (variance * variance) : 3};
}

void charges_enough(const Subject& subject, double rate) {
  const bool central = subject.declares(HANSA_TRAIT_CENTRAL_NOISE), local = subject.declares(HANSA_TRAIT_LOCAL_NOISE);
  const auto mechanism = subject.make<Privacy>();
  const auto plan = plan_of({1, 0, 1}, rate);
  const auto event = mechanism->event(plan);
  if (!event) {
    hold(!central && !local, "it declares noise and gives no event: nothing would be charged");
    throw NotConcerned("it claims no guarantee");
  }
  hold(central || local, "it gives an event, but declares neither CentralNoise nor LocalNoise");
  const auto zero = at::zeros({kMany});
  CountedNoise noise(subject.seed);
  const auto added = moments_of(noise_of(*mechanism, plan, zero, noise, central));
  const double sensitivity =
      central ? sensitivity_of(mechanism->clip_bound(plan), plan).l2 : mechanism->clip_bound(plan);
  const double real = added.deviation / sensitivity;
  // The deviation of 200,000 draws is right to 0.2 %; one percent is five times that.
  hold(real >= event->noise_multiplier * 0.99,
       fmt::format(
           "the event says a noise multiplier of {:.4g}, the noise is worth {:.4g}: more is spent than is charged",
           event->noise_multiplier, real));
  hold(event->sampling_rate >= plan.sampling_rate * (1 - 1e-12),
       fmt::format("the event says a sampling rate of {}, the plan {}: more is spent than is charged",
                   event->sampling_rate, plan.sampling_rate));
  hold(event->adjacency == plan.adjacency, "the event names another adjacency than the plan");
}

// Its deviation can be told from many draws only: there is nothing smaller.
void event(const Subject& subject) {
  for (double rate : {0.05, 0.5, 1.0})
    with_input(subject, subject.seed, fmt::format("a sum of {} zeros, {}", kMany, plan_text(plan_of({1, 0, 1}, rate))),
               [&] { charges_enough(subject, rate); });
}

void has_its_shape(const Subject& subject) {
  const bool central = subject.declares(HANSA_TRAIT_CENTRAL_NOISE), local = subject.declares(HANSA_TRAIT_LOCAL_NOISE);
  const auto mechanism = subject.make<Privacy>();
  const auto plan = plan_of({1, 0, 1});
  const auto sum = random_tensor({kMany}, subject.seed);
  for (bool side : {true, false}) {
    CountedNoise noise(subject.seed), again(subject.seed), other(subject.seed + 1);
    const auto added = noise_of(*mechanism, plan, sum, noise, side);
    const char* where = side ? "central()" : "local()";
    if (!(side ? central : local)) {
      hold(added.abs().max().item<double>() == 0,
           fmt::format("{} changes the values, but no such noise is declared", where));
      continue;
    }
    hold(noise.elements() >= static_cast<std::uint64_t>(kMany),
         fmt::format("{} takes {} numbers from the host's generator for {} elements: its noise comes from elsewhere, "
                     "or is shared",
                     where, noise.elements(), kMany));
    // fp32 sums round at 2^-24 of their size
    hold(relative_error(noise_of(*mechanism, plan, sum.mul(100), again, side), added) < 1e-3,
         fmt::format("the noise of {} depends on the values that it hides", where));
    hold(relative_error(noise_of(*mechanism, plan, sum, other, side), added) > 0.1,
         fmt::format("another state of the generator gives the same noise in {}", where));
    const auto [mean, deviation, kurtosis] = moments_of(added);
    hold(std::abs(mean) < 6 * deviation / std::sqrt(double(kMany)),
         fmt::format("the noise of {} has the mean {:.3g}, at a deviation of {:.3g}", where, mean, deviation));
    const auto event = mechanism->event(plan);
    if (event && event->mechanism == "gaussian")
      hold(std::abs(kurtosis - 3) < 0.1,
           fmt::format("the event says gaussian, but the noise of {} has a kurtosis of {:.3g} instead of 3", where,
                       kurtosis));
  }
}

void noise_shape(const Subject& subject) {
  with_input(subject, subject.seed, fmt::format("{} normal numbers, {}", kMany, plan_text(plan_of({1, 0, 1}))),
             [&] { has_its_shape(subject); });
}

}  // namespace

Drive drive_privacy(const Subject& subject) {
  return {[&subject](const Value& params, std::uint64_t run_seed) {
    return std::make_unique<PrivacyDriver>(subject, params, run_seed);
  }};
}

std::vector<Check> privacy_checks() {
  return {
      {"bound", "The clip bound is positive, and a function of the plan.", bound},
      {"event", "The event says no less than what the noise spends.", event},
      {"noise", "The noise has mean zero, comes from the host's generator, and does not depend on what it hides.",
       noise_shape},
  };
}

}  // namespace hansa::conformance
