// What is known about components, without their code: the config checks a pipeline against this. Torch-free. The strategy
// registry of core/plugin_host implements it; tests hand in their own. Entries live as long as the process.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include <hansa/plugin.h>

namespace hansa {

class ComponentCatalog {
 public:
  virtual ~ComponentCatalog() = default;
  // kind without revision ("aggregator"); name "fedavg", or "fedavg@1" for that major version of the plugin.
  // Null when there is none.
  virtual const HansaComponent* find(std::string_view kind, std::string_view name) const = 0;
  virtual std::vector<std::string> names(std::string_view kind) const = 0;  // sorted, without version
  // Why `name` might be missing, or "": "hansa_fedavg.so was refused: …".
  virtual std::string remark(std::string_view kind, std::string_view name) const { return {}; }
};

}  // namespace hansa
