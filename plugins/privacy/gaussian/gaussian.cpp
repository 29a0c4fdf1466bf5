#include "gaussian.hpp"

#include <cmath>
#include <stdexcept>

#include <hansa/plugin.hpp>

namespace hansa::gaussian {

std::optional<DpEvent> Gaussian::event(const RoundPlan& plan) const {
  return DpEvent{"gaussian", params_.noise_multiplier, plan.sampling_rate, 1, plan.adjacency};
}

void Gaussian::begin_release(const RoundPlan&, const Sensitivity& sensitivity) {
  if (!(sensitivity.l2 > 0) || !std::isfinite(sensitivity.l2))
    throw std::invalid_argument("gaussian: the sensitivity of the sum must be positive and finite");
  sigma_ = params_.noise_multiplier * sensitivity.l2;
}

void Gaussian::central(std::string_view, Index, at::Tensor& sum, SecureRng& rng) {
  if (!sigma_) throw std::logic_error("gaussian: central() outside a release");
  if (sum.scalar_type() != at::kFloat || !sum.is_contiguous())
    throw std::invalid_argument("gaussian: the sum must be contiguous fp32");
  const auto noise = rng.gaussian(sum.sizes(), *sigma_);
  float* to = sum.mutable_data_ptr<float>();
  const float* from = noise.const_data_ptr<float>();
  for (std::int64_t i = 0; i < sum.numel(); ++i) to[i] += from[i];
}

}  // namespace hansa::gaussian

HANSA_PLUGIN(org_hansa_gaussian, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<gaussian::Gaussian, gaussian::Params>(
          "gaussian", "Central differential privacy: Gaussian noise on the sum of clipped updates.")
      .doc(
          "DP-FedAvg (arXiv 1710.06963): joint clipping to clipping_norm, noise of standard deviation noise_multiplier "
          "times the "
          "sensitivity on the sum, division by the planned cohort. `hansa privacy noise` finds the multiplier for an "
          "epsilon. "
          "The coordinator sees single updates: it is trusted.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_CENTRAL_NOISE | HANSA_TRAIT_STATELESS)
      .param(&gaussian::Params::clipping_norm, "clipping_norm",
             "Largest L2 norm of one update, over all tensors together.", more_than(0))
      .param(&gaussian::Params::noise_multiplier, "noise_multiplier",
             "Standard deviation of the noise over the sensitivity of the sum.", more_than(0));
}
