// `hansa check`, and the way in which every command that runs a pipeline opens its file: plugins found, everything resolved,
// all rules looked at. Main thread.
#pragma once
#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "config/load.hpp"
#include "pipeline/estimate.hpp"
#include "plugin_host/registry.hpp"

namespace hansa {

struct PipelineRequest {
  std::filesystem::path file;
  std::vector<std::string> set;                    // --set a.b=c
  std::vector<std::filesystem::path> plugin_path;  // --plugin-path
  config::PluginsSection trust{};                  // --require-signed, --plugin-key, --plugin-digest
  bool nodes_elsewhere = false;                    // the devices of [[node]] are then not this machine's to have
};

struct CheckedPipeline {
  config::LoadResult loaded;             // with what the rules found
  std::optional<pipeline::Shape> shape;  // of model and adapter; only where nothing was wrong before
};

// Settles whose plugins may run (the command line's keys and digests instead of the file's, where there are any; required
// where either requires it), and looks at no plugin where that cannot be told. Scans the plugin paths into the registry (which outlives the result), resolves, applies the rules. Problems are
// diagnostics; nothing is printed. A command then does:
//   if (!checked.loaded.ok()) { std::cerr << config::render(checked.loaded.diagnostics); return checked.loaded.exit_code(); }
CheckedPipeline check_pipeline(const PipelineRequest&, StrategyRegistry&);

struct CheckOptions {
  PipelineRequest pipeline;
  bool json = false;     // one JSON object instead of text
  bool explain = false;  // every value and where it comes from, bytes, memory, disk
};
int check_command(const CheckOptions&, std::ostream& out);  // 0 fine, 1 errors, 2 unreadable

}  // namespace hansa
