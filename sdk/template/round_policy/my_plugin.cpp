#include "my_plugin.hpp"

#include <cmath>

#include <hansa/plugin.hpp>

namespace example {

hansa::Next MyPlugin::decide(const hansa::RoundStatus& status) {
  const auto enough = static_cast<std::size_t>(std::ceil(params_.share * static_cast<double>(status.cohort) - 1e-9));
  if (status.accepted >= enough && (status.accepted > 0 || status.running == 0)) return hansa::Next::Close;
  return status.accepted + status.running >= enough ? hansa::Next::Wait : hansa::Next::Abort;
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Closes a round as soon as a share of its cohort has delivered.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      // Who counts hangs on who was fast: under central DP nothing is amplified (rule 9 of `hansa check`).
      .traits([](const Params& p) {
        return p.share < 1 ? HANSA_TRAIT_CLOSES_EARLY | HANSA_TRAIT_STATELESS : HANSA_TRAIT_STATELESS;
      })
      .param(&Params::share, "share", "Share of the cohort that is enough.", hansa::range(0, 1), "fraction");
}
