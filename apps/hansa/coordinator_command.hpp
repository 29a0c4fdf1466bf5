// `hansa coordinator` and `hansa initial-version`: one end of a federation as a process of its own. Main thread.
#pragma once
#include <filesystem>
#include <string>

#include "opened.hpp"

namespace hansa {

struct CoordinatorOptions {
  PipelineRequest pipeline;  // the file is config.toml of the run directory when resuming
  std::filesystem::path run_dir;
  std::string listen;                    // "": the file's
  bool resume = false, changed = false;  // changed: the pipeline is not the one that the run began with
  bool insecure_plaintext = false;
  Warnings warnings = Warnings::Shown;
};
// The address it listens on stands in <run_dir>/address while it runs. 0: finished; 1: cannot; 3: stopped, can be resumed.
int coordinator_command(const CoordinatorOptions&);

// Version 0 of a pipeline, written by a process of its own so that the coordinator never holds a model.
int initial_version_command(PipelineRequest, const std::filesystem::path& out, double rank);

inline constexpr int kExitStopped = 3;

}  // namespace hansa
