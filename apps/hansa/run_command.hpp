// `hansa run`: a whole federation from one command. Either a simulation in this process, or a coordinator and one node
// process per [[node]], started, watched and reaped; then the report. Main thread.
#pragma once
#include <filesystem>

#include "check_command.hpp"

namespace hansa {

struct RunOptions {
  PipelineRequest pipeline;
  std::string device;  // --device; empty: the file's  // file empty when resuming
  std::filesystem::path run_dir;
  bool resume = false;
  bool changed = false;                    // resumed with another pipeline, or without a node
  std::vector<std::string> without_nodes;  // left out when resuming
};
int run_command(
    RunOptions);  // 0: complete; 1: failed; 2: usage; 3: stopped, go on with --resume; 70, 71: call_watch.hpp

}  // namespace hansa
