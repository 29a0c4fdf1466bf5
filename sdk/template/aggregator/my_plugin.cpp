#include "my_plugin.hpp"

#include <algorithm>
#include <stdexcept>

#include <ATen/ops/zeros.h>
#include <hansa/plugin.hpp>

namespace example {

// What reduce() holds at once: the sum and one client's delta of the largest tensor.
std::uint64_t MyPlugin::workspace(const hansa::Layout& layout, const hansa::Group& group, std::size_t) const {
  std::int64_t largest = 0;
  for (auto member : group.members) largest = std::max(largest, layout.tensors.at(member).elements());
  return 2 * sizeof(float) * static_cast<std::uint64_t>(largest);
}

void MyPlugin::reduce(const hansa::Updates& updates, hansa::Results& results) {
  for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
    auto sum = at::zeros(updates.tensor(member).shape);
    double weights = 0;
    for (std::size_t client = 0; client < updates.clients(); ++client) {
      const double weight = updates.who(client).weight;
      if (weight < params_.min_weight) continue;
      const auto delta = updates.delta(client, member);
      if (delta.sizes() != sum.sizes()) throw std::invalid_argument("my_plugin averages tensors of one shape");
      sum.add_(delta, weight);
      weights += weight;
    }
    if (weights > 0) sum.div_(weights);
    results.put(member, sum);
  }
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Weighted mean of the clients' changes, without those of little weight.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_ELEMENTWISE_MEAN | HANSA_TRAIT_NEEDS_INDIVIDUALS |
              HANSA_TRAIT_STATELESS)
      .param(&Params::min_weight, "min_weight", "Clients of a smaller weight are left out.", hansa::at_least(0));
}
