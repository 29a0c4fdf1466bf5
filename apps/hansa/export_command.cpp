#include "export_command.hpp"

#include <ATen/core/grad_mode.h>

#include <iostream>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <gguf/export.hpp>
#include <hf/checkpoint_writer.hpp>

#include "checkpoint/run_directory.hpp"
#include "coordination.hpp"
#include "model_session.hpp"
#include "node/worker.hpp"
#include "opened.hpp"
#include "trust_options.hpp"

namespace hansa {

using Path = std::filesystem::path;

namespace {

// What is exported, wherever it comes from.
struct Exported {
  Path base;
  Model& model;
  std::function<std::vector<Injection>()> injections;
  std::function<void(const Path&)> export_adapter;
};

const std::pair<std::string_view, gguf::Number> kTypes[] = {
    {"f32", gguf::Number::f32}, {"f16", gguf::Number::f16}, {"bf16", gguf::Number::bf16}};

}  // namespace

struct ExportCommand::Options {
  Path run, model, adapter, out, gguf, state;
  std::string node, type;
  std::vector<Path> plugin_path;
  config::PluginsSection trust;
  bool merged = false;
  CLI::App* app = nullptr;

  void require_new_outputs() const;
  int export_run() const;
  int export_checkpoint() const;
  void write(const Exported&) const;
  void write_gguf(const Exported&) const;
  const config::NodeSpec* chosen_node(const OpenedPipeline&) const;
  node::Silo silo_of(const config::NodeSpec&) const;
};

ExportCommand::ExportCommand(CLI::App& program) : options_(std::make_unique<Options>()) {
  auto& o = *options_;
  o.app = program.add_subcommand(
      "export", "Write a result for others: a PEFT adapter, a merged checkpoint, a GGUF file for llama.cpp");
  auto* run = o.app->add_option("--run", o.run, "A run directory")->check(CLI::ExistingDirectory);
  auto* model = o.app->add_option("--model", o.model, "A Hugging Face directory, instead of a run")
                    ->check(CLI::ExistingDirectory)
                    ->excludes(run);
  o.app->add_option("--adapter", o.adapter, "With --model: an adapter's directory (PEFT)")
      ->check(CLI::ExistingDirectory)
      ->needs(model);
  o.app->add_option("--out", o.out, "A new directory: PEFT's, or with --merged a Transformers checkpoint");
  auto* gguf = o.app->add_option("--gguf", o.gguf,
                                 "A new GGUF file: a LoRA adapter, or with --merged the model with its tokenizer");
  o.app->add_option("--type", o.type, "Of a GGUF file's matrices: f32, f16, bf16 (default: f32 of adapters, else f16)")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->needs(gguf);
  o.app
      ->add_option("--node", o.node,
                   "As this node has it: at its rank, with what it keeps for itself (a personal part)")
      ->needs(run);
  o.app->add_option("--state", o.state, "Where that node's state lies (default: in the run directory)")
      ->check(CLI::ExistingDirectory)
      ->needs(run);
  o.app->add_flag("--merged", o.merged, "The whole model with the adapter folded in");
  o.app->add_option("--plugin-path", o.plugin_path, "Folder or file with plugins (repeatable)")
      ->allow_extra_args(false);
  add_trust_options(*o.app, o.trust);
}

ExportCommand::~ExportCommand() = default;

bool ExportCommand::chosen() const { return options_->app->parsed(); }

int ExportCommand::run() const {
  const at::NoGradGuard no_grad;
  const auto& o = *options_;
  if (o.run.empty() == o.model.empty()) throw Error("say what to export: --run DIR or --model DIR");
  if (o.out.empty() && o.gguf.empty()) throw Error("say where to: --out DIR, --gguf FILE or both");
  o.require_new_outputs();
  return o.run.empty() ? o.export_checkpoint() : o.export_run();
}

void ExportCommand::Options::require_new_outputs() const {
  if (!out.empty() && std::filesystem::exists(out) && !std::filesystem::is_empty(out))
    throw Error(fmt::format("{} exists already; name a new directory", out.string()));
  if (!gguf.empty() && std::filesystem::exists(gguf))
    throw Error(fmt::format("{} exists already; name a new file", gguf.string()));
}

int ExportCommand::Options::export_checkpoint() const {
  if (adapter.empty() && !merged) throw Error("--model without --adapter is exported whole: add --merged");
  StrategyRegistry registry;
  registry.set_trust(policy_of(trust));
  registry.scan(search_paths(plugin_path, {}));
  const auto session =
      open_model(registry, {}, model, adapter.empty() ? std::nullopt : std::optional(adapter), Opening{});
  write({model, *session.model, [&] { return session.adapter->injections(); },
         [&](const Path& directory) {
           guard(session.adapter, {.doing = "export"},
                 [&](Adapter& one) { one.export_to(*session.model, session.modules, model.string(), directory); });
         }});
  return 0;
}

int ExportCommand::Options::export_run() const {
  if (!RunDirectory::holds_a_run(run)) throw Error(fmt::format("{} holds no run", run.string()));
  int exit_code = 0;
  // On the CPU, wherever the run was: an export folds and copies, and need not find the run's devices here.
  const auto opened = open_pipeline({.file = run / "config.toml",
                                     .set = {"model.device=cpu"},
                                     .plugin_path = plugin_path,
                                     .trust = trust,
                                     .nodes_elsewhere = true},
                                    exit_code, Warnings::Hidden);
  if (!opened) return exit_code;
  const RunDirectory directory(run, RunDirectory::Open::Resume);
  if (directory.versions().empty()) throw Error(fmt::format("{} has released no version yet", run.string()));
  const Log log;
  const auto* of = chosen_node(*opened);
  const double rank = of ? of->rank : 0;
  node::Worker worker(opened->spec, *opened->registry,
                      {&log, nullptr, static_cast<std::uint64_t>(opened->spec.run.seed), {}}, {.rank = rank});
  const bool kept = of && (rank == 0 || has_personal_part(*opened, rank));
  const auto silo = kept ? std::optional(silo_of(*of)) : std::nullopt;
  worker.load(coordinator::standing_of(directory, directory.versions().back(), view_of(*opened, rank)),
              down_channels(*opened, rank), silo ? &*silo : nullptr);
  write({opened->spec.model_host.path, worker.model(), [&] { return worker.injections(); },
         [&](const Path& to) { worker.export_adapter(to); }});
  return 0;
}

void ExportCommand::Options::write(const Exported& exported) const {
  if (!gguf.empty()) write_gguf(exported);
  if (!out.empty()) {
    if (merged)
      hf::write_checkpoint(out, exported.base, exported.model.merged());
    else
      exported.export_adapter(out);
    std::cout << fmt::format("{}\n", std::filesystem::absolute(out).string());
  }
}

void ExportCommand::Options::write_gguf(const Exported& exported) const {
  auto number = merged ? gguf::Number::f16 : gguf::Number::f32;
  for (const auto& [name, one] : kTypes)
    if (name == type) number = one;
  const auto remarks = merged ? gguf::export_model(gguf, exported.base, exported.model.merged(), number)
                              : gguf::export_adapter(gguf, exported.base, exported.injections(), number);
  for (const auto& remark : remarks) std::cerr << fmt::format("note: {}\n", remark);
  std::cout << fmt::format("{}\n", std::filesystem::absolute(gguf).string());
}

const config::NodeSpec* ExportCommand::Options::chosen_node(const OpenedPipeline& opened) const {
  if (node.empty()) return nullptr;
  const auto& nodes = opened.spec.nodes;
  const auto found = std::find_if(nodes.begin(), nodes.end(), [&](const auto& one) { return one.name == node; });
  if (found == nodes.end()) throw Error(fmt::format("{} has no node '{}'", run.string(), node));
  return &*found;
}

// Where a node's personal part is kept: in the run directory of `hansa run`, else on the node's machine.
node::Silo ExportCommand::Options::silo_of(const config::NodeSpec& of) const {
  node::Silo silo{node, of.data, of.heldout, state.empty() ? run / "nodes" / node : state};
  if (!std::filesystem::exists(silo.state / "state"))
    throw Error(
        fmt::format("{} keeps nothing of node '{}': either nothing of it is personal, or its state lies elsewhere "
                    "(--state DIR)",
                    silo.state.string(), node));
  return silo;
}

}  // namespace hansa
