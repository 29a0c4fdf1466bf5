// A pipeline file made ready to run: plugins found, everything resolved and checked, digests taken. Every command that runs
// one begins here; problems are printed as `hansa check` prints them. Main thread.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "check_command.hpp"
#include "checkpoint/run_directory.hpp"
#include "plugin_host/default_host.hpp"
#include "plugin_host/registry.hpp"
#include "wire/messages.hpp"

namespace hansa {

struct OpenedPipeline {
  std::unique_ptr<StrategyRegistry> registry;  // outlives everything below
  config::RunSpec spec;
  pipeline::Shape shape;
};

// Null after printing why: `exit_code` is then what the program ends with.
enum class Warnings { Shown, Hidden };  // hidden in child processes: their parent has shown them
std::unique_ptr<OpenedPipeline> open_pipeline(const PipelineRequest&, int& exit_code, Warnings = Warnings::Shown);

std::string build_text();  // "hansa 0.1.0, torch 2.13.0"
// The plugins that nodes and coordinator must share: those whose code decides what an update means.
std::vector<wire::PluginRef> shared_plugins(const config::RunSpec&, const StrategyRegistry&);
struct Digests {
  std::string base, tokenizer;
};
Digests digests_of(const config::RunSpec&);  // of the checkpoint; of config.json alone where weights are initialised

// Writes config.toml and run.json (build, seed, every plugin found with its digest and whether the pipeline uses it) into a new
// run directory.
void describe_run(const RunDirectory&, const OpenedPipeline&);

}  // namespace hansa
