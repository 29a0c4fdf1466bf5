// What `hansa plugins list` and `describe` print, for people and as JSON. Main thread.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "plugin_host/registry.hpp"

namespace hansa {

enum class Rows : std::uint8_t { Components, ComponentsAndFiles };

std::string list_text(const StrategyRegistry&, Rows);
std::string list_json(const StrategyRegistry&);  // {"components": […], "files": […]}: always everything
std::string describe_text(const StrategyRegistry&, const HansaComponent&);
std::string describe_json(const StrategyRegistry&, const HansaComponent&);  // one object
// By "fedavg", "fedavg@1", "aggregator/fedavg" or a plugin's id; several kinds may use one name.
std::vector<const HansaComponent*> find_any(const StrategyRegistry&, std::string_view name);

// "integer", "list of number", "nearest | stochastic", "aggregator component".
std::string type_text(const HansaParam&);
// As TOML: 0.5, "nearest", ["q", "v"], "4MiB".
std::string toml_text(const HansaValue&);
std::vector<std::string> trait_names(std::uint64_t flags);  // "Additive", …
std::string sha256_of(const PluginFile&);  // of what was loaded, else of the file; "" when it cannot be read

}  // namespace hansa
