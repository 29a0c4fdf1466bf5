#include "layers.hpp"

#include <hansa/plugin.hpp>

namespace hansa::layers {

std::vector<adapters::Part> Layers::parts(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);
  const auto name = who();
  std::vector<adapters::Part> all;
  for (const auto& module : adapters::choose(
           {.adapter = name, .what = "modules with parameters", .fits = adapters::holds_tensors, .all = "all"},
           {params_.targets, params_.blocks}, modules))
    all.push_back(whole(module));
  return all;
}

}  // namespace hansa::layers

HANSA_PLUGIN(org_hansa_layers, "0.1.0") {
  using namespace hansa;
  using layers::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<layers::Layers, Params>("layers", "Some of the base's own parameters train: blocks, and modules by name.")
      .doc("The last block alone where nothing else is said. Optimiser state and updates are as large as what trains.")
      .param(&Params::targets, "targets", "Ends of names of modules, such as mlp.down_proj; or \"all\".", list_of(),
             at_least(1))
      .param(&Params::blocks, "blocks",
             "Numbers of the blocks that they are in, -1 is the last; none: wherever they are.", list_of())
      .param(&Params::outside, "outside", "Ends of names of modules beside those blocks, such as lm_head.", list_of());
}
