#include "fedavg.hpp"

#include <hansa/plugin.hpp>

HANSA_PLUGIN(org_hansa_fedavg, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<fedavg::FedAvg>("fedavg", "Weighted mean of the clients' changes (federated averaging).")
      .doc(
          "arXiv 1602.05629. The weights are the host's ([round] weights); the rule returns the weighted sum, and the "
          "host adds "
          "noise where asked and divides.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_ELEMENTWISE_MEAN | HANSA_TRAIT_STATELESS);
}
