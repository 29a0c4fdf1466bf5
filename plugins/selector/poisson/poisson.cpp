#include "poisson.hpp"

#include <hansa/plugin.hpp>

HANSA_PLUGIN(org_hansa_poisson, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<poisson::Poisson, poisson::Params>(
          "poisson", "Each node independently with one rate: what privacy amplification assumes.")
      .doc(
          "Cohort sizes vary; an empty cohort is a round like any other. Give either the rate or the expected cohort, "
          "which is "
          "divided by the registered population.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_POISSON | HANSA_TRAIT_STATELESS)
      .param(&poisson::Params::rate, "rate", "Probability that a node works in a round.", more_than(0), at_most(1))
      .param(&poisson::Params::expected_cohort, "expected_cohort", "How many nodes work in a round on the average.",
             more_than(0), "nodes")
      .check([](const poisson::Params& p, Problems& problems) {
        if (p.rate && p.expected_cohort)
          problems.add("rate", "rate and expected_cohort say the same thing twice", "Leave one of them out.");
        if (!p.rate && !p.expected_cohort)
          problems.add("", "poisson needs a rate or an expected cohort", "Add rate = 0.1 or expected_cohort = 10.");
      });
}
