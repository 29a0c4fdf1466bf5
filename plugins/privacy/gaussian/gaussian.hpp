// Privacy "gaussian": central differential privacy. The host clips; this adds Gaussian noise to the sum, once, with standard
// deviation noise_multiplier times the sensitivity that the host enforced, and says what that cost. The accounting of a
// sampled cohort assumes that each node was drawn independently (Poisson): see rules 9 and 21 of `hansa check`.
#pragma once
#include <hansa/privacy.hpp>

namespace hansa::gaussian {

struct Params {
  double clipping_norm = 1;
  double noise_multiplier = 1;
};

class Gaussian final : public Stateless<Privacy> {
 public:
  explicit Gaussian(Params params) : params_(params) {}
  double clip_bound(const RoundPlan&) const override { return params_.clipping_norm; }
  std::optional<DpEvent> event(const RoundPlan&) const override;
  void begin_release(const RoundPlan&, const Sensitivity&) override;
  void central(std::string_view channel, Index, at::Tensor& sum, SecureRng&) override;
  void end_release() override { sigma_.reset(); }

 private:
  Params params_;
  std::optional<double> sigma_;  // of the release that is under way
};

}  // namespace hansa::gaussian
