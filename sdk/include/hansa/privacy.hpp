// Kind "privacy": the clip bound, the noise and what it costs. The host clips (on the node and again on the coordinator),
// calls central() on the sum, divides by the planned cohort, and journals the event before the release.
#pragma once
#include <optional>

#include <hansa/component.hpp>
#include <hansa/dp_event.hpp>

namespace hansa {

struct Sensitivity {
  double l2 = 0;  // of the sum, as enforced by the host this round: clip bound times largest weight
  double largest_weight = 1;
  double denominator = 1;  // what the sum is divided by
};
class SecureRng {  // from a cryptographic generator; never from the run's seed
 public:
  virtual ~SecureRng() = default;
  virtual at::Tensor gaussian(at::IntArrayRef shape, double sigma) = 0;  // fp32
};

class Privacy : public Component {
 public:
  using InterfaceType = Privacy;
  static constexpr std::string_view kKind = "privacy/1";
  virtual double clip_bound(const RoundPlan&) const = 0;  // L2, joint over all Sum channels; infinity: no clipping
  virtual void local(std::string_view channel, Index, at::Tensor& delta, SecureRng&) {}  // [node] after the clip
  virtual std::optional<DpEvent> event(const RoundPlan&) const = 0;  // nothing: no guarantee, nothing spent
  virtual void begin_release(const RoundPlan&, const Sensitivity&) {}
  virtual void central(std::string_view channel, Index, at::Tensor& sum, SecureRng&) {}  // [fold] on the sum, in place
  virtual void end_release() {}
};

}  // namespace hansa
