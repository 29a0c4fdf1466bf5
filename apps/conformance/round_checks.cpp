// What selectors and round policies promise.
#include <cmath>
#include <limits>
#include <random>

#include <fmt/format.h>
#include <hansa/selection.hpp>

#include "conformance/driver.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

constexpr std::size_t kPopulations[] = {1, 2, 5, 20, 100};

class SeededDraw final : public DrawRng {
 public:
  explicit SeededDraw(std::uint64_t seed) : engine_(seed) {}
  double uniform() override { return std::uniform_real_distribution<double>(0, 1)(engine_); }

 private:
  std::mt19937_64 engine_;
};

std::vector<NodeFacts> population_of(std::size_t count, Round round) {
  std::vector<NodeFacts> nodes;
  for (std::size_t i = 0; i < count; ++i)
    nodes.push_back(
        {.node = 3 + 11 * i, .examples = 10 * (i + 1), .uplink_bytes_per_second = 1e6, .last_seen = round - 1});
  return nodes;
}
std::string nodes_text(int size) { return fmt::format("{} registered node(s)", kPopulations[size]); }

class SelectorDriver final : public Driver {
 public:
  SelectorDriver(const Subject& subject, const Value& params, std::uint64_t run_seed)
      : selector_(subject.make_with<Selector>(params, run_seed)) {}
  Component& component() override { return *selector_; }
  NamedTensors play(const Case& input) override {
    const auto registered = population_of(kPopulations[input.size], input.round);
    SeededDraw draw(input.seed + 1000 * input.round);
    NamedTensors trace{{"expected cohort", number(selector_->expected_cohort(registered.size()))},
                       {"sampling rate", number(selector_->sampling_rate(registered.size()))}};
    for (auto node : selector_->choose(registered, draw))
      trace.emplace_back("a chosen node", number(static_cast<double>(node)));
    return trace;
  }
  std::string describe(const Case& input) const override { return nodes_text(input.size); }

 private:
  Instance<Selector> selector_;
};

void with_populations(const Subject& subject,
                      const std::function<void(Selector&, const std::vector<NodeFacts>&, std::uint64_t)>& call) {
  smallest_first(
      subject, [](const Case& input) { return nodes_text(input.size); },
      [&](const Case& input) {
        call(*subject.make<Selector>(), population_of(kPopulations[input.size], 1), subject.seed * 101 + input.seed);
      });
}

void subset(const Subject& subject) {
  with_populations(subject, [](Selector& selector, const std::vector<NodeFacts>& registered, std::uint64_t seed) {
    SeededDraw draw(seed);
    for (int i = 0; i < 20; ++i) {
      NodeId last = 0;
      for (auto node : selector.choose(registered, draw)) {
        hold(
            std::any_of(registered.begin(), registered.end(), [node](const auto& facts) { return facts.node == node; }),
            fmt::format("it chooses node {}, which is not registered", node));
        hold(node > last, "the chosen nodes are not in ascending order, or one is chosen twice");
        last = node;
      }
    }
  });
}

constexpr int kDraws = 2000;

void expected(const Subject& subject) {
  with_populations(subject, [](Selector& selector, const std::vector<NodeFacts>& registered, std::uint64_t seed) {
    SeededDraw draw(seed);
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const auto size = static_cast<double>(selector.choose(registered, draw).size());
      sum += size;
      squares += size * size;
    }
    const double mean = sum / kDraws, variance = std::max(squares / kDraws - mean * mean, 0.0);
    const double planned = selector.expected_cohort(registered.size());
    hold(std::abs(mean - planned) <= 5 * std::sqrt(variance / kDraws) + 1e-9,
         fmt::format("expected_cohort() plans {:.4g} nodes, {} draws have {:.4g} on average: the denominator under "
                     "central DP is wrong",
                     planned, kDraws, mean));
  });
}

// Amplification by sampling holds only when each node is drawn by itself, with the rate that is said.
void rate(const Subject& subject) {
  const bool poisson = subject.declares(HANSA_TRAIT_POISSON);
  with_populations(
      subject, [poisson](Selector& selector, const std::vector<NodeFacts>& registered, std::uint64_t seed) {
        const double rate = selector.sampling_rate(registered.size());
        hold(rate > 0 && rate <= 1, fmt::format("the sampling rate is {}", rate));
        if (!poisson) {
          hold(rate == 1,
               fmt::format("it says a sampling rate of {} without declaring Poisson: nothing is amplified", rate));
          return;
        }
        SeededDraw draw(seed);
        const auto n = static_cast<double>(registered.size());
        std::vector<double> times(registered.size());
        double squares = 0;
        for (int i = 0; i < kDraws; ++i) {
          const auto chosen = selector.choose(registered, draw);
          for (auto node : chosen) times[static_cast<std::size_t>((node - 3) / 11)] += 1;
          const double off = static_cast<double>(chosen.size()) - n * rate;
          squares += off * off;
        }
        const double error = std::sqrt(rate * (1 - rate) / kDraws);
        for (double count : times)
          hold(std::abs(count / kDraws - rate) <= 6 * error + 1e-9,
               fmt::format("a node is drawn in {:.4g} of the rounds instead of {:.4g}", count / kDraws, rate));
        const double variance = n * rate * (1 - rate), spread = squares / kDraws;
        hold(std::abs(spread - variance) <= 6 * variance * std::sqrt(2.0 / kDraws) + variance * 0.1 + 1e-9,
             fmt::format("the cohort's size varies by {:.4g} instead of {:.4g}: nodes are not drawn independently",
                         spread, variance));
      });
}

void everyone(const Subject& subject) {
  if (!subject.declares(HANSA_TRAIT_EVERYONE)) throw NotConcerned("it does not declare Everyone");
  with_populations(subject, [](Selector& selector, const std::vector<NodeFacts>& registered, std::uint64_t seed) {
    SeededDraw draw(seed);
    hold(selector.choose(registered, draw).size() == registered.size(), "it declares Everyone and leaves nodes out");
  });
}

// ---- round policies ------------------------------------------------------------------------------------------------------

constexpr std::size_t kCohorts[] = {1, 2, 4, 10, 50};
std::string cohort_text(int size) { return fmt::format("a cohort of {}", kCohorts[size]); }

class PolicyDriver final : public Driver {
 public:
  PolicyDriver(const Subject& subject, const Value& params, std::uint64_t run_seed)
      : policy_(subject.make_with<RoundPolicy>(params, run_seed)) {}
  Component& component() override { return *policy_; }
  NamedTensors play(const Case& input) override {
    const auto cohort = kCohorts[input.size];
    NamedTensors trace;
    for (std::size_t accepted = 0; accepted <= cohort; ++accepted)
      for (double seconds : {0.0, 1.0, 1e6}) {
        const RoundStatus status{cohort, accepted, cohort - accepted, 0, seconds};
        trace.emplace_back("a decision", number(static_cast<double>(policy_->decide(status))));
      }
    return trace;
  }
  std::string describe(const Case& input) const override { return cohort_text(input.size); }

 private:
  Instance<RoundPolicy> policy_;
};

void with_policies(const Subject& subject, const std::function<void(RoundPolicy&, std::size_t)>& call) {
  smallest_first(
      subject, [](const Case& input) { return cohort_text(input.size); },
      [&](const Case& input) { call(*subject.make<RoundPolicy>(), kCohorts[input.size]); });
}

void ends(const Subject& subject) {
  with_policies(subject, [](RoundPolicy& policy, std::size_t cohort) {
    for (std::size_t accepted = 0; accepted <= cohort; ++accepted) {
      const RoundStatus settled{cohort, accepted, 0, cohort - accepted, 1};
      hold(policy.decide(settled) != Next::Wait,
           fmt::format("{} accepted, {} refused, nobody is running: it still waits, for ever", accepted,
                       cohort - accepted));
    }
    hold(policy.decide({cohort, cohort, 0, 0, 1}) == Next::Close,
         "all updates are accepted, and it does not close the round");
    const double deadline = policy.deadline_seconds();
    hold(deadline > 0, fmt::format("deadline_seconds() is {}", deadline));
    if (std::isfinite(deadline))
      hold(policy.decide({cohort, 0, cohort, 0, deadline + 1}) != Next::Wait,
           "its own deadline has passed, and it still waits");
  });
}

void early(const Subject& subject) {
  if (subject.declares(HANSA_TRAIT_CLOSES_EARLY)) throw NotConcerned("it declares ClosesEarly");
  with_policies(subject, [](RoundPolicy& policy, std::size_t cohort) {
    for (std::size_t running = 1; running <= cohort; ++running)
      for (double seconds : {0.0, 60.0, 1e7})
        hold(policy.decide({cohort, cohort - running, running, 0, seconds}) != Next::Close,
             fmt::format("it closes after {} s while {} of {} are running, and does not declare ClosesEarly", seconds,
                         running, cohort));
  });
}

}  // namespace

Drive drive_selector(const Subject& subject) {
  return {[&subject](const Value& params, std::uint64_t run_seed) {
    return std::make_unique<SelectorDriver>(subject, params, run_seed);
  }};
}
Drive drive_round_policy(const Subject& subject) {
  return {[&subject](const Value& params, std::uint64_t run_seed) {
    return std::make_unique<PolicyDriver>(subject, params, run_seed);
  }};
}

std::vector<Check> selector_checks() {
  return {
      {"subset", "It chooses registered nodes, each once, in ascending order.", subset},
      {"expected", "expected_cohort() is the mean of what it draws.", expected},
      {"rate", "Poisson: each node by itself, with the rate that is said. Otherwise the rate is 1.", rate},
      {"everyone", "Everyone: nobody is left out.", everyone},
  };
}

std::vector<Check> round_policy_checks() {
  return {
      {"ends", "When nobody is left to wait for, or its deadline has passed, the round ends.", ends},
      {"early", "It closes with nodes running only if it declares ClosesEarly.", early},
  };
}

}  // namespace hansa::conformance
