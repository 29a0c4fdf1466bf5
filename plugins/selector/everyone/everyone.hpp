// Selector "everyone": all registered nodes, every round.
#pragma once
#include <hansa/selection.hpp>

namespace hansa::everyone {

class Everyone final : public Stateless<Selector> {
 public:
  double expected_cohort(std::size_t population) const override { return static_cast<double>(population); }
  double sampling_rate(std::size_t) const override { return 1; }
  std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng&) override {
    std::vector<NodeId> all;
    for (const auto& node : registered) all.push_back(node.node);
    return all;
  }
};

}  // namespace hansa::everyone
