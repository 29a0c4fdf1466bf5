// Selector "my_plugin": each round, a share of the registered nodes, everyone equally likely. Replace the choice; keep to the
// rules of hansa/selection.hpp: randomness only from the DrawRng, a subset in the order given.
#pragma once
#include <hansa/selection.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  double share = 0.5;
};

class MyPlugin final : public hansa::Stateless<hansa::Selector> {
 public:
  explicit MyPlugin(Params params) : params_(params) {}
  double expected_cohort(std::size_t population) const override;
  double sampling_rate(std::size_t) const override { return 1; }  // a fixed number is no independent draw
  std::vector<hansa::NodeId> choose(std::span<const hansa::NodeFacts> registered, hansa::DrawRng&) override;

 private:
  std::size_t cohort(std::size_t population) const;
  Params params_;
};

}  // namespace example
