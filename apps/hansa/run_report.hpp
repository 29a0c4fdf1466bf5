// After the last round: what came out of it. Exports the adapter, trains the local-only baselines where asked, measures every
// model on every silo's held-out text, draws the plot, writes summary.json and report.txt, prints the table. Main thread.
#pragma once
#include <atomic>
#include <filesystem>
#include <vector>

#include "opened.hpp"

namespace hansa {

// The run directory must hold a released version. 0: done; 3: stopped on the way (call again).
int report_run(const OpenedPipeline&, const std::filesystem::path& run_dir,
               const std::vector<std::filesystem::path>& plugin_path, const std::atomic<bool>& stop);

// `hansa train-alone`: one local-only baseline, as a process of its own so that several use all cores. The node trains the rounds
// that it was part of in the run whose journal this is.
int train_alone_command(const PipelineRequest&, const std::string& node, const std::filesystem::path& journal,
                        const std::filesystem::path& out);

}  // namespace hansa
