// Kinds "selector" (who works in a round) and "round_policy" (when a round closes). Torch-free in spirit; coordinator's
// round thread.
#pragma once
#include <span>

#include <hansa/component.hpp>

namespace hansa {

// Randomness of a cohort draw. Under amplified DP it comes from a cryptographic generator, else from the run's seed.
class DrawRng {
 public:
  virtual ~DrawRng() = default;
  virtual double uniform() = 0;  // [0, 1)
};

class Selector : public Component {
 public:
  using InterfaceType = Selector;
  static constexpr std::string_view kKind = "selector/1";
  virtual double expected_cohort(std::size_t population) const = 0;  // planned, public
  virtual double sampling_rate(
      std::size_t population) const = 0;  // 1 unless each node is drawn independently with this rate
  // `registered` in ascending NodeId; returns a subset in the same order.
  virtual std::vector<NodeId> choose(std::span<const NodeFacts> registered, DrawRng&) = 0;
};

class RoundPolicy : public Component {
 public:
  using InterfaceType = RoundPolicy;
  static constexpr std::string_view kKind = "round_policy/1";
  virtual Next decide(const RoundStatus&) = 0;
  virtual double deadline_seconds() const = 0;  // when to ask again at the latest; infinity: only on events
};

}  // namespace hansa
