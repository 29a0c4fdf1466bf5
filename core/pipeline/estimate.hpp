// What a run will cost, before it runs: bytes per client and round after each codec stage, memory and disk of coordinator
// and node. Computed from instances that need no weights (config.json only); printed by `hansa check --explain`. Main
// thread. What a plugin throws on the way is passed on: the caller reports it.
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
struct StageRow {
  std::string stage;  // "delta", "int8", "zstd"
  std::uint64_t typical = 0, most = 0;
};
struct CostEstimate {
  std::vector<TensorRow> tensors;  // the trainable layout
  std::uint64_t tensor_count = 0, group_count = 0, parameters = 0;
  std::vector<StageRow>
      up;                  // per client and round, after each stage; packet index (below 1 KiB per tensor) not counted
  std::uint64_t down = 0;  // per client and round: a version has moved and every client fetches it
  double cohort = 0;       // clients that a round expects
  std::uint64_t population = 0;
  std::uint64_t coordinator_memory = 0;  // above an idle process
  std::uint64_t coordinator_disk = 0;    // versions with optimiser state, and the spooled uploads of one round
  std::uint64_t node_memory = 0;         // above an idle process, without the activations of a batch
  std::uint64_t node_disk = 0;           // the update that is being sent
  std::uint64_t base_parameters = 0;
  std::vector<std::string> remarks;  // the trainer's
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
