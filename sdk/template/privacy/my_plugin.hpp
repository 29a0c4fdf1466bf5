// Privacy "my_plugin": a bound on each update's joint length, and noise of `noise_multiplier` times the sensitivity on the sum.
// The host clips, divides and journals the event. Replace the mechanism; keep to the rules of hansa/privacy.hpp: the event must
// say no less than what was spent.
#pragma once
#include <hansa/privacy.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  double clipping_norm = 1;
  double noise_multiplier = 1;
};

class MyPlugin final : public hansa::Stateless<hansa::Privacy> {
 public:
  explicit MyPlugin(Params params) : params_(params) {}
  double clip_bound(const hansa::RoundPlan&) const override { return params_.clipping_norm; }
  std::optional<hansa::DpEvent> event(const hansa::RoundPlan&) const override;
  void begin_release(const hansa::RoundPlan&, const hansa::Sensitivity&) override;
  void central(std::string_view channel, hansa::Index, at::Tensor& sum, hansa::SecureRng&) override;

 private:
  Params params_;
  double sigma_ = 0;  // of this release
};

}  // namespace example
