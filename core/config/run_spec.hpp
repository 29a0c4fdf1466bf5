// What a pipeline file means once it is resolved: every default filled in, every path absolute, every component known to
// exist. Made by config/load.hpp; read by everyone else. Values only; torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <hansa/plugin.h>
#include <hansa/opening.hpp>
#include <hansa/types.hpp>
#include <hansa/value.hpp>

namespace hansa::config {

struct Position {    // where a value was written: line and column from 1, columns in characters
  std::string file;  // as it is shown; "--set a.b=c" (line 0) for the command line; "" (line 0) for a default
  std::uint32_t line = 0, column = 0;
  bool operator==(const Position&) const = default;
};

struct ComponentSpec {                        // one plugged-in algorithm: `use = "fedavg"` and its parameters
  std::string kind;                           // "aggregator"; "" with no component: an optional section left out
  std::string use;                            // "fedavg", as written ("fedavg@1" is allowed)
  const HansaComponent* component = nullptr;  // lives as long as the process
  Value params;                               // a table: every parameter, defaults filled in
  HansaTraits traits{};                       // for these parameters
  Position where;
};

struct PluginsSection {  // [plugins]: whose code may run; machine-local, no part of what nodes and coordinator agree on
  bool require_signed = false;
  std::vector<std::string> keys;     // "ed25519:…", or the absolute path of a public key
  std::vector<std::string> digests;  // "sha256:<64 hex digits>"
  bool says_anything() const { return require_signed || !keys.empty() || !digests.empty(); }
};
struct RunSection {
  std::string name;  // default: the file's stem
  std::int64_t seed = 1;
  std::int64_t rounds = 1;
  std::string durability = "process";  // process: survives SIGKILL; power: fsync at each step
  std::int64_t keep_versions = 2;      // released model versions kept on disk
  double call_limit_seconds = 600;     // of one call of the coordinator into a plugin, which then sees host.cancelled()
  double call_grace_seconds = 30;      // beyond the limit and this the process ends
  double node_call_limit_seconds =
      3600;  // the same of calls that train and evaluate, since their last sign of progress
  double node_call_grace_seconds = 60;
  std::int64_t compact_log_after = 16;  // entries of a log channel, before a rule that can compacts them into one
};
struct ModelSection {            // beside the model plugin's own parameters in [model]
  std::filesystem::path path;    // a Hugging Face directory
  std::string device = "auto";   // auto | cpu | cuda:N, of this machine: no part of what nodes and coordinator agree on
  std::string compute = "auto";  // f32 | bf16; auto is resolved: bf16 where the base is quantised, else f32
  BaseDtype base_dtype = BaseDtype::Compute;
  Kernels kernels = Kernels::Fast;
  bool recompute = false;   // activations again in the backward pass: slower, smaller
  bool initialise = false;  // random weights from config.json and the seed: training from scratch
};
struct TrainSection {
  std::int64_t threads = 0;  // LibTorch threads of a node; 0 is resolved: 1 when several nodes share the machine
};
struct FeedbackSection {  // [error_feedback]: what a codec loses is added to the node's next update
  double decay = 1;       // of the memory, each round
};
struct WeightSection {                 // host keys of [aggregator]
  std::string weighting = "examples";  // examples | tokens | uniform
  std::optional<double> max_weight;    // cap; with it example weights are bounded, and so is the sensitivity
};
struct PrivacySection {  // host keys of [privacy]
  std::optional<double> epsilon_budget;
  double delta = 1e-5;
  std::string client_metrics = "withhold";  // withhold | publish: what nodes report about their data (rule 19)
};
struct EvaluationSection {
  std::int64_t every = 0;  // rounds between evaluations on the nodes' held-out data; 0: only at the end
  struct Set {             // held-out data of the coordinator's own: belongs to no node
    std::string name;
    std::filesystem::path data;
  };
  std::vector<Set> sets;
};
struct NetworkSection {
  std::string listen = "127.0.0.1:0";  // host:port, or unix:PATH
  double lease_seconds = 30;           // without a heartbeat for this long, a node loses its slot
  double heartbeat_seconds = 5;
};
struct SimulationSection {  // present: all nodes live in this process
  // A directory: each file or folder in it is one node's silo, named after it. Empty: the nodes are those of [[node]].
  std::filesystem::path nodes_from;
};
struct ReportSection {
  bool local_only = false;    // also train one adapter per silo alone, and evaluate each on every silo
  std::string sample_prompt;  // text generated before and after, when not empty
  std::int64_t sample_tokens = 60;
};
struct NodeSpec {
  std::string name;
  std::filesystem::path data;                    // silo: what the data source opens
  std::optional<std::filesystem::path> heldout;  // evaluated, never trained on
  double rank = 0;                               // of its adapter; 0: the pipeline's
  std::string device;                            // as in [model]; empty: the one there
  std::size_t listed = 0;                        // its place among the file's [[node]], from 0
  Position where;
};

struct RunSpec {
  RunSection run;
  ModelSection model_host;
  TrainSection train;
  WeightSection weights;
  PrivacySection privacy_host;
  EvaluationSection evaluation;
  NetworkSection network;
  std::optional<SimulationSection> simulation;
  std::optional<FeedbackSection> error_feedback;
  ReportSection report;
  std::vector<std::filesystem::path> plugin_path;
  PluginsSection plugins;

  // Every one is there but privacy, which may be left out (component null, traits 0). On a node that got its spec from a
  // coordinator, aggregator, server_optimizer, selector and round_policy may be null too: they run over there.
  ComponentSpec model, adapter, trainer, data, evaluator, privacy, aggregator, server_optimizer, selector, round_policy;
  std::vector<ComponentSpec> codecs;    // of what travels up, in the order of encoding
  std::vector<ComponentSpec> downlink;  // of what travels down; empty: versions are sent as they are
  std::vector<NodeSpec> nodes;          // ascending by name; from [[node]] or simulation.nodes_from
  std::filesystem::path file;           // the file that was loaded
};

}  // namespace hansa::config
