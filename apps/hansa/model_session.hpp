// A checkpoint opened without a pipeline: the model plugin that accepts it, the adapter plugin that recognises the adapter's
// directory, the tokenizer beside the weights. Main thread. Throws Error that says which models or adapters there are.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include <hansa/adapter.hpp>
#include <hf/tokenizer.hpp>

#include "plugin_host/instance.hpp"

namespace hansa {

struct ModelSession {
  Instance<Model> model;
  std::vector<Module> modules;
  Instance<Adapter> adapter;  // null: none was asked for
  std::unique_ptr<Tokenizer> tokenizer;

  const Tokenizer& require_tokenizer(const std::filesystem::path& checkpoint) const;
};

ModelSession open_model(const StrategyRegistry&, const HostServices&, const std::filesystem::path& checkpoint,
                        const std::optional<std::filesystem::path>& adapter, const Opening& opening);

// The most mature component of a kind (among equals the first by name), or the one with this name; with default parameters.
template <class Interface>
Instance<Interface> make_default(const StrategyRegistry& registry, const HostServices& services,
                                 const std::string& name = {}) {
  const std::string_view kind = Interface::kKind.substr(0, Interface::kKind.find('/'));
  if (!name.empty()) {
    const auto& component = require(registry, Interface::kKind, name);
    return create<Interface>(registry, component, with_defaults(component, Value()), services);
  }
  const HansaComponent* best = nullptr;
  for (const auto* component : registry.components(kind))
    if (!best || component->maturity > best->maturity) best = component;
  if (!best) throw Error("no plugin of kind " + std::string(kind) + " was found; see: hansa plugins list --all");
  return create<Interface>(registry, *best, with_defaults(*best, Value()), services);
}

}  // namespace hansa
