#include "my_plugin.hpp"

#include <unistd.h>

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::Module;
using hansa::testing::promise;

namespace {

struct Base final : hansa::testing::BareModel {
  at::Tensor weight = at::full({2, 3}, 1.0), bias = at::full({2}, 0.5);
  std::pair<at::Tensor, at::Tensor> base(std::string_view) const override { return {weight, bias}; }
};
std::vector<Module> modules() {
  return {{.name = "layer.0.up", .in = 3, .out = 2, .bias = true},
          {.name = "layer.0.down", .in = 2, .out = 3},
          {.name = "layer.1.up", .in = 3, .out = 2, .bias = true}};
}

void the_layout_is_the_biases() {
  const auto layout = MyPlugin({}).layout(modules(), 0);
  promise(layout.tensors.size() == 2 && layout.groups.size() == 2, "not two biases");
  promise(layout.tensors[1].name == "layer.1.up.bias" && layout.tensors[1].shape == std::vector<std::int64_t>{2},
          "another");
  promise(MyPlugin({{"0.up"}}).layout(modules(), 0).tensors.size() == 1, "`targets` chose others");
  hansa::testing::promise_throws([] { MyPlugin({{"none"}}).layout(modules(), 0); }, "an empty layout");
  hansa::testing::promise_throws([] { MyPlugin({}).layout(modules(), 8); }, "a rank was accepted");
}

void training_leaves_the_base_alone() {
  Base base;
  MyPlugin adapter({});
  adapter.create(base, modules(), 0, 1);
  adapter.parameter(0).detach().fill_(7);
  promise(at::equal(base.bias, at::full({2}, 0.5)), "the base changed");
  const auto injections = adapter.injections();
  promise(injections.size() == 2 && injections[0].module == "layer.0.up", "other injections");
  const auto& replaced = std::get<hansa::Replace>(injections[0].what);
  promise(at::equal(replaced.bias.detach(), at::full({2}, 7.0)), "the injection is no live parameter");
}

void an_export_is_read_back() {
  const auto directory = std::filesystem::temp_directory_path() / ("my_plugin_test_" + std::to_string(getpid()));
  Base base;
  MyPlugin first({}), second({});
  first.create(base, modules(), 0, 1);
  first.parameter(1).detach().fill_(-3);
  first.export_to(base, modules(), "base", directory);
  promise(second.recognises(directory) && !second.recognises("/nowhere"), "recognises another directory");
  second.import_from(directory, base, modules());
  promise(at::equal(second.parameter(1).detach(), first.parameter(1).detach()), "another value came back");
  std::filesystem::remove_all(directory);
}

}  // namespace

int main() {
  return hansa::testing::run_cases({{"the layout is the biases", the_layout_is_the_biases},
                                    {"training leaves the base alone", training_leaves_the_base_alone},
                                    {"an export is read back", an_export_is_read_back}});
}
