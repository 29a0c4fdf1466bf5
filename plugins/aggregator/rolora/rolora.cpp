#include "rolora.hpp"

#include <factors/pairs.hpp>
#include <hansa/plugin.hpp>

namespace hansa::rolora {

Exchange RoLora::exchange(const Layout& trainable, const RoundPlan& plan, const NodeFacts&) const {
  Exchange exchange{.roles = std::vector<Role>(trainable.tensors.size(), Role::Frozen)};
  const bool turn_of_B = plan.round % 2 == 1;  // B starts at zero, and with it all that A would learn from
  for (const auto& pair : factors::pairs_of(trainable, "rolora"))
    exchange.roles[turn_of_B ? pair.B : pair.A] = Role::Shared;
  return exchange;
}

}  // namespace hansa::rolora

HANSA_PLUGIN(org_hansa_rolora, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<rolora::RoLora>("rolora", "Low-rank pairs, one factor a round: B in odd rounds, A in even ones.")
      .doc(
          "arXiv 2502.01755. The factor at rest is the same on all nodes, so the mean of the other gives the mean of "
          "the "
          "products. Half the bytes a round.")
      .groups("lora")
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_ELEMENTWISE_MEAN | HANSA_TRAIT_EXACT |
              HANSA_TRAIT_STATELESS);
}
