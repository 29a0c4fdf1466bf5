// `hansa plugins list [--all] [--json]`, `hansa plugins describe NAME [--json]`, `hansa plugins kinds [--json]`, `hansa plugins
// new KIND NAME [--dir DIR]`. Main thread. main() adds the command to its parser, builds the registry (with the paths of
// --plugin-path in `plugin_path`), and calls run_plugins.
#pragma once
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include "config/run_spec.hpp"
#include "plugin_host/registry.hpp"

namespace CLI {
class App;
}

namespace hansa {

struct PluginsOptions {
  enum class Action : std::uint8_t { List, Describe, Kinds, New };
  Action action = Action::List;
  bool all = false;  // also one row per file looked at
  bool json = false;
  std::string name;  // to describe: "fedavg", "aggregator/fedavg", or a plugin's id; or of the new plugin
  std::string kind;  // of the new plugin
  std::filesystem::path directory;  // of the new plugin; empty: its name
  std::vector<std::filesystem::path> plugin_path;
  config::PluginsSection trust;
};

CLI::App* add_plugins_command(CLI::App& parent, PluginsOptions&);

// 0: done. 1: a file was refused (list; said on `err`, the list is printed all the same) or nothing has that name (describe), or the
// project cannot be written (new).
// Wrong usage is the parser's: 2.
int run_plugins(const PluginsOptions&, const StrategyRegistry&, std::ostream& out, std::ostream& err);

}  // namespace hansa
