#include "my_plugin.hpp"

#include <algorithm>
#include <stdexcept>

#include <hansa/plugin.hpp>
#include <hf/tensors.hpp>

namespace example {

namespace {
constexpr const char* kFile = "my_plugin_biases.safetensors";
}

bool MyPlugin::chosen(const hansa::Module& module) const {
  const auto ends = [&](const std::string& target) { return module.name.ends_with(target); };
  return module.bias && (params_.targets.empty() || std::any_of(params_.targets.begin(), params_.targets.end(), ends));
}

hansa::Layout MyPlugin::layout(std::span<const hansa::Module> modules, double rank) const {
  if (rank != 0) throw std::invalid_argument("my_plugin: biases have no rank; leave the node's rank out");
  hansa::Layout layout;
  for (const auto& module : modules) {
    if (!chosen(module)) continue;
    layout.groups.push_back({"", {static_cast<hansa::Index>(layout.tensors.size())}});
    layout.tensors.push_back({module.name + ".bias", hansa::DType::f32, {module.out}});
  }
  if (layout.tensors.empty()) throw std::invalid_argument("my_plugin: no module with a bias matches `targets`");
  return layout;
}

void MyPlugin::create(const hansa::Model& model, std::span<const hansa::Module> modules, double, std::uint64_t) {
  biases_.clear();
  for (const auto& module : modules) {
    if (!chosen(module)) continue;
    auto [weight, bias] = model.base(module.name);
    biases_.push_back({module.name, weight, bias.detach().clone().requires_grad_(true)});  // a copy: the base stays
  }
}

std::vector<hansa::Injection> MyPlugin::injections() {
  std::vector<hansa::Injection> all;
  for (const auto& bias : biases_) all.push_back({bias.module, hansa::Replace{bias.weight, bias.value}});
  return all;
}

void MyPlugin::export_to(const hansa::Model&, std::span<const hansa::Module>, const std::string&,
                         const std::filesystem::path& directory) const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& bias : biases_) tensors.emplace_back(bias.module + ".bias", bias.value.detach());
  std::filesystem::create_directories(directory);
  hansa::hf::save_tensors(directory / kFile, tensors);
}

bool MyPlugin::recognises(const std::filesystem::path& directory) const {
  return std::filesystem::exists(directory / kFile);
}

void MyPlugin::import_from(const std::filesystem::path& directory, const hansa::Model& model,
                           std::span<const hansa::Module> modules) {
  const hansa::hf::SafetensorsFile file(directory / kFile);
  biases_.clear();
  for (const auto& module : modules) {
    const auto* stored = file.find(module.name + ".bias");
    if (!stored) continue;
    if (stored->shape != std::vector{module.out})
      throw std::invalid_argument("my_plugin: " + module.name + ".bias does not fit this model");
    auto value = hansa::hf::load_tensor(*stored, hansa::DType::f32);
    biases_.push_back({module.name, model.base(module.name).first, value.requires_grad_(true)});
  }
  if (biases_.size() != file.tensors().size())
    throw std::invalid_argument("my_plugin: " + (directory / kFile).string() + " names modules that this model lacks");
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Trains the biases and nothing else.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Params::targets, "targets", "Ends of the names of modules; empty: all that have a bias.",
             hansa::list_of());
}
