// Selector "uniform": a cohort of fixed size, every subset equally likely (selection sampling: one pass, order kept).
#pragma once
#include <algorithm>

#include <hansa/selection.hpp>

namespace hansa::uniform {

struct Params {
  std::int64_t cohort = 10;
};

class Uniform final : public Stateless<Selector> {
 public:
  explicit Uniform(Params params) : params_(params) {}
  double expected_cohort(std::size_t population) const override {
    return static_cast<double>(std::min(static_cast<std::size_t>(params_.cohort), population));
  }
  double sampling_rate(std::size_t) const override { return 1; }  // draws depend on each other: nothing is amplified
  std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng& rng) override {
    std::vector<NodeId> chosen;
    auto wanted = std::min(static_cast<std::size_t>(params_.cohort), registered.size());
    for (std::size_t i = 0; i < registered.size() && wanted > 0; ++i) {
      // Each of the nodes left is in the cohort with probability wanted / left.
      if (rng.uniform() * static_cast<double>(registered.size() - i) >= static_cast<double>(wanted)) continue;
      chosen.push_back(registered[i].node);
      --wanted;
    }
    return chosen;
  }

 private:
  Params params_;
};

}  // namespace hansa::uniform
