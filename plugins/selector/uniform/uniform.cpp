#include "uniform.hpp"

#include <hansa/plugin.hpp>

HANSA_PLUGIN(org_hansa_uniform, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<uniform::Uniform, uniform::Params>("uniform", "A cohort of fixed size, every one equally likely.")
      .doc(
          "Each round draws `cohort` of the registered nodes without replacement, or all when there are fewer. Under "
          "central DP "
          "this amplifies nothing here: use poisson for that.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_STATELESS)
      .param(&uniform::Params::cohort, "cohort", "How many nodes work in a round.", at_least(1), "nodes");
}
