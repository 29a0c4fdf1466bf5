#include "config/sections.hpp"

namespace hansa::config {

Sections make_sections() {
  Sections s;
  s.plugins
      .param(&PluginsSection::require_signed, "require_signed",
             "Load only plugins that bear a signature of a listed key, or whose digest is listed.")
      .param(&PluginsSection::keys, "keys",
             "Public keys: files that `hansa plugins keygen` wrote, or ed25519:… as it prints them.",
             list_of(range(1, 4096)))
      .param(&PluginsSection::digests, "digests", "sha256:… of files that may be loaded without a signature.",
             list_of(range(1, 4096)));
  s.run.param(&RunSection::name, "name", "What the run is called in reports; by default the file's name.")
      .param(&RunSection::seed, "seed", "Fixes everything but privacy noise and the cohort draw under it.", at_least(0))
      .param(&RunSection::rounds, "rounds", "How many rounds to run.", range(1, 1e9))
      .param(&RunSection::durability, "durability", "process: survives SIGKILL; power: fsync at each step.",
             choices({"process", "power"}))
      .param(&RunSection::keep_versions, "keep_versions", "Released model versions kept on disk.", range(1, 1e6))
      .param(&RunSection::call_limit_seconds, "call_limit_seconds",
             "A coordinator's call into a plugin that takes longer is asked to stop.", "seconds", range(0.1, 1e6))
      .param(&RunSection::call_grace_seconds, "call_grace_seconds",
             "A call that goes on this long after its limit ends the process.", "seconds", range(0.1, 1e6))
      .param(&RunSection::node_call_limit_seconds, "node_call_limit_seconds",
             "A node's call into a plugin that takes longer without a sign of progress is asked to stop.", "seconds",
             range(0.1, 1e7))
      .param(&RunSection::node_call_grace_seconds, "node_call_grace_seconds",
             "A node's call that goes on this long after its limit ends the node's process.", "seconds",
             range(0.1, 1e7))
      .param(&RunSection::compact_log_after, "compact_log_after",
             "Entries of a log channel before a rule that can compacts them into one.", range(1, 1e6));
  s.error_feedback.param(&FeedbackSection::decay, "decay", "What is kept of the memory from round to round.",
                         range(0, 1));
  s.model
      .param(&ModelSection::path, "path", "A Hugging Face directory: config.json, *.safetensors, tokenizer.json.",
             must_exist())
      .param(&ModelSection::device, "device",
             "What this machine computes on: cpu, cuda:N, or auto: the first CUDA device where there is one.")
      .param(&ModelSection::compute, "compute",
             "Number type of the forward and backward pass; auto: bf16 where the base is quantised, else f32.",
             choices({"auto", "f32", "bf16"}))
      .param(&ModelSection::base_dtype, "base_dtype",
             "How frozen weights are held in memory: as they are computed with, or quantised to 4 or 8 bits.",
             choices(base_dtype_names()))
      .param(&ModelSection::kernels, "kernels",
             "fast: hand-written passes where there are some; plain: LibTorch's operators one by one.",
             choices(kernels_names()))
      .param(&ModelSection::recompute, "recompute",
             "Activations are computed again in the backward pass: less memory, about a third more time.")
      .param(&ModelSection::initialise, "initialise",
             "Random weights from config.json and the seed: training from scratch.");
  s.train.param(&TrainSection::threads, "threads",
                "LibTorch threads of a node; 0: 1 with several nodes, else all cores.", range(0, 1024));
  s.weights
      .param(&WeightSection::weighting, "weighting", "What a client's weight is.",
             choices({"examples", "tokens", "uniform"}))
      .param(&WeightSection::max_weight, "max_weight",
             "Cap on a client's weight; makes it bounded, and the sensitivity with it.", more_than(0));
  s.privacy
      .param(&PrivacySection::epsilon_budget, "epsilon_budget", "The run stops before a release that would exceed it.",
             more_than(0))
      .param(&PrivacySection::delta, "delta", "The delta at which epsilon is stated.", more_than(0), less_than(1))
      .param(&PrivacySection::client_metrics, "client_metrics", "What nodes report about their own data.",
             choices({"withhold", "publish"}));
  s.evaluation.param(&EvaluationSection::every, "every", "Rounds between evaluations on the nodes; 0: only at the end.",
                     range(0, 1e9));
  s.evaluation_set.param(&EvaluationSection::Set::name, "name", "What the set is called in reports.", required())
      .param(&EvaluationSection::Set::data, "data", "Held-out data of the coordinator's own.", required(),
             must_exist());
  s.network.param(&NetworkSection::listen, "listen", "host:port, or unix:PATH; port 0 picks a free one.")
      .param(&NetworkSection::lease_seconds, "lease_seconds",
             "Without a heartbeat for this long a node loses its slot.", "seconds", range(0.1, 86400))
      .param(&NetworkSection::heartbeat_seconds, "heartbeat_seconds", "How often a working node reports.", "seconds",
             range(0.01, 86400));
  s.simulation.param(&SimulationSection::nodes_from, "nodes_from",
                     "A directory: each file or folder in it is one node's silo, named after it.", must_exist());
  s.report.param(&ReportSection::local_only, "local_only", "Also train one adapter per silo alone, and compare.")
      .param(&ReportSection::sample_prompt, "sample_prompt", "Text to continue before and after the run; empty: none.")
      .param(&ReportSection::sample_tokens, "sample_tokens", "Length of that text.", range(1, 100000));
  s.node.param(&NodeSpec::name, "name", "1 to 64 of A-Z a-z 0-9 . _ -", required())
      .param(&NodeSpec::data, "data", "The silo: a file or directory.", required(), must_exist())
      .param(&NodeSpec::heldout, "heldout", "Evaluated, never trained on.", must_exist())
      .param(&NodeSpec::rank, "rank", "Rank of its adapter, where nodes differ; 0: the pipeline's.", range(0, 1e6))
      .param(&NodeSpec::device, "device",
             "What this node computes on when it runs on this machine: auto, cpu or cuda:N; empty: as [model] says.");
  return s;
}

}  // namespace hansa::config
