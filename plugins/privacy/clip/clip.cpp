#include "clip.hpp"

#include <hansa/plugin.hpp>

HANSA_PLUGIN(org_hansa_clip, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<clip::Clip, clip::Params>("clip",
                                     "Bounds each update's length; adds no noise, so it gives no differential privacy.")
      .doc(
          "Every update is scaled down to a joint L2 norm of at most clipping_norm, on the node and again on the "
          "coordinator, so "
          "that no silo can move the model further than that in a round. That is protection against outliers, not a "
          "privacy "
          "guarantee: without noise there is no epsilon, and the report says so. For a guarantee use a mechanism with "
          "noise "
          "and many clients.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_STATELESS)
      .param(&clip::Params::clipping_norm, "clipping_norm", "Largest L2 norm of one update, over all tensors together.",
             more_than(0));
}
