// `hansa node`: one silo's process. It knows its data, its checkpoint and an address; the pipeline comes from the coordinator.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/run_spec.hpp"

namespace hansa {

struct NodeOptions {
  std::string connect, name;
  double rank = 0;  // of its adapter; 0: the pipeline's
  std::filesystem::path data, model, state;
  std::optional<std::filesystem::path> heldout;
  std::vector<std::filesystem::path> plugin_path;
  config::PluginsSection trust;  // this machine's own: what the coordinator trusts does not count here
  bool insecure_plaintext = false;
  std::string device = "auto";
  double give_up_after = 0;  // seconds without a coordinator; 0: never
  // Of this machine: how long a call into a plugin may go on without a sign of progress.
  double call_limit = config::RunSection().node_call_limit_seconds;
  double call_grace = config::RunSection().node_call_grace_seconds;
};
// 0: the run is complete; 1: refused or failed; 3: stopped; 70, 71: a plugin crashed, or did not come back; 72: another process of this node is gone, start all of them again.
int node_command(const NodeOptions&);
inline constexpr int kExitOutOfStep = 72;

}  // namespace hansa
