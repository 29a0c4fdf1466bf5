// Privacy "clip": bounds each update's joint L2 norm and adds no noise. Limits one silo's influence; gives no differential
// privacy and claims none: event() is nothing.
#pragma once
#include <hansa/privacy.hpp>

namespace hansa::clip {

struct Params {
  double clipping_norm = 1;
};

class Clip final : public Stateless<Privacy> {
 public:
  explicit Clip(Params params) : params_(params) {}
  double clip_bound(const RoundPlan&) const override { return params_.clipping_norm; }
  std::optional<DpEvent> event(const RoundPlan&) const override { return {}; }

 private:
  Params params_;
};

}  // namespace hansa::clip
