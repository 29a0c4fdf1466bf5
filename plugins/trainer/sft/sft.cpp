#include "sft.hpp"

#include <train/declare.hpp>

HANSA_PLUGIN(org_hansa_sft, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component = plugin.add<sft::Sft, sft::Params>("sft", "Supervised training by AdamW or SGD, some steps a round.");
  train::declare(component).doc(
      "Each round starts with a fresh optimiser state, as plain federated averaging does (arXiv 1602.05629). The "
      "gradient is divided by the counted tokens of the whole accumulation. AdamW: arXiv 1711.05101.");
}
