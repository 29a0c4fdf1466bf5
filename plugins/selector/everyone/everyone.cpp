#include "everyone.hpp"

#include <hansa/plugin.hpp>

HANSA_PLUGIN(org_hansa_everyone, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<everyone::Everyone>("everyone", "All registered nodes work in every round.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_EVERYONE | HANSA_TRAIT_STATELESS);
}
