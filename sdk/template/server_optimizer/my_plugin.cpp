#include "my_plugin.hpp"

#include <hansa/plugin.hpp>

namespace example {

std::vector<hansa::TensorSpec> MyPlugin::state(const hansa::TensorSpec& parameter) const {
  return {{"velocity", hansa::DType::f32, parameter.shape}};
}

void MyPlugin::step(std::string_view, hansa::Index, at::Tensor& parameter, const at::Tensor& delta,
                    std::span<at::Tensor> state) {
  auto& velocity = state[0];
  velocity.mul_(params_.momentum).add_(delta);
  parameter.add_(velocity, params_.learning_rate);
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Adds the aggregate with momentum.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_KEEPS_HISTORY | HANSA_TRAIT_STATELESS)
      .param(&Params::learning_rate, "learning_rate", "Share of the velocity that is added.", hansa::more_than(0))
      .param(&Params::momentum, "momentum", "Share of the velocity that is kept.", hansa::at_least(0),
             hansa::less_than(1));
}
