// What a run will cost, before it runs: bytes per client and round after each codec stage, memory and disk of coordinator,
// node and of a machine that has them all. Computed from instances that need no weights (config.json only); printed by
// `hansa check --explain`. Main thread. What a plugin throws on the way is passed on: the caller reports it.
//
// Memory is anonymous and shared memory above an idle process, without the activations of a batch, of which a pipeline says
// nothing: mapped files (a base in safetensors, versions, uploads) are the system's cache. Disk is the most that lies there at
// once. Uploaded lists whose length the sender decides count as long as the coordinator lets them be; entries of logs without a
// fixed length are left out, and the remarks say so.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <hansa/adapter.hpp>

#include "config/run_spec.hpp"
#include "pipeline/stages.hpp"

namespace hansa::pipeline {

struct TensorRow {  // tensors whose names differ in numbers only: "model.layers.*.self_attn.q_proj.lora_A"
  std::string name;
  std::string type;                                  // "f32 [8, 64]"
  std::uint64_t count = 0, elements = 0, bytes = 0;  // of all of them together
};
struct StageRow {     // one upload, whole, if the chain ended with this stage: the packet's head and index are in it
  std::string stage;  // "delta", "int8", "zstd"
  std::uint64_t typical = 0, most = 0;
};
struct CostEstimate {
  std::vector<TensorRow> tensors;  // the trainable layout
  std::uint64_t tensor_count = 0, group_count = 0, parameters = 0, base_parameters = 0;
  std::vector<StageRow> up;  // per client and round, after each stage
  std::uint64_t down_typical = 0,
                down_most = 0;  // per client and round: what moved of a version, and a whole one (for who was away)
  double cohort = 0;            // clients that a round expects
  std::uint64_t most_cohort = 0, population = 0;
  std::uint64_t coordinator_memory = 0;
  std::uint64_t first_version_memory =
      0;  // of the process that makes version 0, at the coordinator, before the first round
  std::uint64_t coordinator_disk = 0;  // its run directory: versions and what goes with them, uploads, logs, records
  std::uint64_t node_memory = 0;
  std::uint64_t node_disk = 0;  // its state directory: the version held, logs, what it keeps between rounds
  // `hansa run`: all of it on one machine; in simulation one process, which reads versions where the coordinator has them.
  std::uint64_t run_processes = 0, run_memory = 0, run_disk = 0;
  std::vector<std::string> remarks;
};

// The layout that model and adapter give for the checkpoint of the spec: rule 17 and the estimate look at it.
struct Shape {
  std::vector<Module> modules;
  Layout trainable;       // at the adapter's own rank
  LayoutsByRank layouts;  // and at each that a node of the spec asks for
};
Shape shape_of(const config::RunSpec&, const StrategyRegistry&, const HostServices&);

CostEstimate estimate(const config::RunSpec&, const Shape&, const Stages&);

}  // namespace hansa::pipeline
