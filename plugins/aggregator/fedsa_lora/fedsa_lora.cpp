#include "fedsa_lora.hpp"

#include <factors/pairs.hpp>
#include <hansa/plugin.hpp>

namespace hansa::fedsa_lora {

Exchange FedSaLora::exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const {
  Exchange exchange{.roles = std::vector<Role>(trainable.tensors.size(), Role::Personal)};
  for (const auto& pair : factors::pairs_of(trainable, "fedsa_lora")) exchange.roles[pair.A] = Role::Shared;
  return exchange;
}

}  // namespace hansa::fedsa_lora

HANSA_PLUGIN(org_hansa_fedsa_lora, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<fedsa_lora::FedSaLora>("fedsa_lora", "Low-rank pairs whose A is shared and whose B never leaves its node.")
      .doc(
          "arXiv 2410.01463. A learns what the nodes have in common, B what is a node's own: each node ends with a "
          "model "
          "of its own. Half the bytes a round.")
      .groups("lora")
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_STATELESS);
}
