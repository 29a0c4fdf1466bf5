// The parameters of one component outside a pipeline file: `--set key=value` of commands that look at a single plugin. Problems
// are diagnostics, as in a file. Main thread.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include <hansa/catalog.hpp>
#include <hansa/value.hpp>

#include "config/diagnostic.hpp"

namespace hansa::config {

struct ComponentParams {
  Value params;  // whole when there are no errors: defaults filled in
  std::vector<Diagnostic> diagnostics;
};
// `set`: "key=value" or "table.key=value" each, the value as TOML or, if it is none, as text. Relative paths start here.
ComponentParams read_component(const ComponentCatalog&, std::string_view kind, const std::string& name,
                               const std::vector<std::string>& set);

}  // namespace hansa::config
