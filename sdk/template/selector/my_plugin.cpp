#include "my_plugin.hpp"

#include <algorithm>
#include <cmath>

#include <hansa/plugin.hpp>

namespace example {

std::size_t MyPlugin::cohort(std::size_t population) const {
  const auto wanted = static_cast<std::size_t>(std::llround(params_.share * static_cast<double>(population)));
  return std::min(population, std::max<std::size_t>(wanted, 1));
}

double MyPlugin::expected_cohort(std::size_t population) const { return static_cast<double>(cohort(population)); }

// Walks through the nodes and takes each with the chance that leaves every subset equally likely.
std::vector<hansa::NodeId> MyPlugin::choose(std::span<const hansa::NodeFacts> registered, hansa::DrawRng& random) {
  std::vector<hansa::NodeId> chosen;
  auto wanted = cohort(registered.size()), left = registered.size();
  for (const auto& node : registered) {
    if (random.uniform() * static_cast<double>(left--) >= static_cast<double>(wanted)) continue;
    chosen.push_back(node.node);
    --wanted;
  }
  return chosen;
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "A share of the registered nodes, everyone equally likely.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Params::share, "share", "Share of the nodes in a cohort, at least one node.", hansa::range(0, 1),
             "fraction");
}
