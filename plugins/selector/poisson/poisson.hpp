// Selector "poisson": each registered node independently with one rate, which is what the accountant's amplification by
// sampling assumes. The host hands it a cryptographic DrawRng under central DP and keeps the drawn cohort secret.
#pragma once
#include <algorithm>
#include <optional>

#include <hansa/selection.hpp>

namespace hansa::poisson {

struct Params {
  std::optional<double> rate;
  std::optional<double> expected_cohort;
};

class Poisson final : public Stateless<Selector> {
 public:
  explicit Poisson(Params params) : params_(params) {}
  double expected_cohort(std::size_t population) const override {
    return sampling_rate(population) * static_cast<double>(population);
  }
  double sampling_rate(std::size_t population) const override {
    if (params_.rate) return *params_.rate;
    return population == 0 ? 1 : std::min(1.0, params_.expected_cohort.value_or(1) / static_cast<double>(population));
  }
  std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng& rng) override {
    const double rate = sampling_rate(registered.size());
    std::vector<NodeId> chosen;
    for (const auto& node : registered)
      if (rng.uniform() < rate) chosen.push_back(node.node);
    return chosen;
  }

 private:
  Params params_;
};

}  // namespace hansa::poisson
