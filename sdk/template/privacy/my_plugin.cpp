#include "my_plugin.hpp"

#include <hansa/plugin.hpp>

namespace example {

std::optional<hansa::DpEvent> MyPlugin::event(const hansa::RoundPlan& plan) const {
  return hansa::DpEvent{.mechanism = "gaussian",
                        .noise_multiplier = params_.noise_multiplier,
                        .sampling_rate = plan.sampling_rate,
                        .count = 1,
                        .adjacency = plan.adjacency};
}

// The sensitivity is the host's: of the sum, as clipped and weighted this round, under the plan's adjacency.
void MyPlugin::begin_release(const hansa::RoundPlan&, const hansa::Sensitivity& sensitivity) {
  sigma_ = params_.noise_multiplier * sensitivity.l2;
}

void MyPlugin::central(std::string_view, hansa::Index, at::Tensor& sum, hansa::SecureRng& random) {
  sum.add_(random.gaussian(sum.sizes(), sigma_));
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Clips each update and adds Gaussian noise to the sum.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_CENTRAL_NOISE | HANSA_TRAIT_STATELESS)
      .param(&Params::clipping_norm, "clipping_norm", "Largest L2 norm of one update.", hansa::more_than(0))
      .param(&Params::noise_multiplier, "noise_multiplier", "Deviation of the noise over the sensitivity.",
             hansa::more_than(0));
}
