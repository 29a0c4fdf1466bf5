// The one program. Reads the command line, hands each command its options, turns failures into a sentence and an exit code:
// 0 done, 1 failed, 2 wrong usage or unreadable file, 3 stopped and can go on, 70 crashed, 71 a plugin did not come back,
// 72 another process of the same node is gone.
#include <signal.h>

#include <iostream>

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "check_command.hpp"
#include "config/json_schema.hpp"
#include "conformance_command.hpp"
#include "coordinator_command.hpp"
#include "data_command.hpp"
#include "export_command.hpp"
#include "model_commands.hpp"
#include "node_command.hpp"
#include "opened.hpp"
#include "plugins_command.hpp"
#include "privacy_command.hpp"
#include "processes.hpp"
#include "run_command.hpp"
#include "run_report.hpp"
#include "sign_command.hpp"
#include "trust_options.hpp"

namespace hansa {
namespace {

struct Commands {  // parsed options of every command; the one that was chosen is run
  PluginsOptions plugins;
  CheckOptions check;
  RunOptions run;
  std::filesystem::path resume_dir;
  CoordinatorOptions coordinator;
  NodeOptions node;
  PipelineRequest initial, alone;
  std::filesystem::path initial_out, alone_journal, alone_out;
  double initial_rank = 0;
  std::string alone_node;
  pid_t parent = 0;  // of a part of another command: see die_with_parent()
};

void add_pipeline_options(CLI::App& command, PipelineRequest& request) {
  command.add_option("--set", request.set, "Override a value: a.b=c (repeatable)")->allow_extra_args(false);
  command.add_option("--plugin-path", request.plugin_path, "Folder or file with plugins (repeatable)")
      ->allow_extra_args(false);
  add_trust_options(command, request.trust);
}

CLI::App* add_run(CLI::App& program, Commands& all) {
  auto* run = program.add_subcommand(
      "run", "Run a whole federation: a simulation, or coordinator and nodes as local processes");
  run->add_option("config", all.run.pipeline.file, "Pipeline file (TOML)");
  run->add_option("--run-dir", all.run.run_dir, "Where everything of the run goes (default: runs/<name>-<time>)");
  run->add_option("--resume", all.resume_dir,
                  "Go on with the run in this directory; with --set also with another plugin or parameter");
  run->add_option("--without-node", all.run.without_nodes,
                  "With --resume: leave this node out from now on (repeatable)")
      ->allow_extra_args(false);
  run->add_option("--device", all.run.device, "As --set model.device=…: auto, cpu or cuda:N");
  add_pipeline_options(*run, all.run.pipeline);
  run->footer("Example: hansa run configs/quickstart.toml --run-dir runs/first");
  return run;
}

CLI::App* add_coordinator(CLI::App& program, Commands& all) {
  auto* coordinator =
      program.add_subcommand("coordinator", "Coordinate a run; nodes join from other processes or machines");
  coordinator->add_option("config", all.coordinator.pipeline.file, "Pipeline file (TOML)")->required();
  coordinator->add_option("--run-dir", all.coordinator.run_dir, "Where everything of the run goes")->required();
  coordinator->add_option("--listen", all.coordinator.listen,
                          "host:port or unix:PATH (default: the file's [network] listen)");
  coordinator->add_flag("--resume", all.coordinator.resume, "Go on with the run in --run-dir");
  coordinator->add_flag("--changed", all.coordinator.changed,
                        "With --resume: the file names another plugin, or lacks a node, on purpose");
  coordinator->add_flag("--insecure-plaintext", all.coordinator.insecure_plaintext,
                        "Listen beyond loopback although nothing is encrypted");
  coordinator->add_option("--die-with-parent", all.parent)->group("");
  add_pipeline_options(*coordinator, all.coordinator.pipeline);
  return coordinator;
}

CLI::App* add_node(CLI::App& program, Commands& all) {
  auto& node = all.node;
  auto* command = program.add_subcommand("node", "Train one silo for a coordinator");
  command->footer(
      "Several processes for one node: torchrun --nproc-per-node 2 --no-python hansa node …, or srun with MASTER_ADDR "
      "and "
      "MASTER_PORT set");
  command->add_option("--connect", node.connect, "The coordinator: host:port or unix:PATH")->required();
  command->add_option("--name", node.name, "This node's name, as in the run's [[node]]")->required();
  command->add_option("--data", node.data, "The silo: what is trained on; it stays here")
      ->required()
      ->check(CLI::ExistingPath);
  command->add_option("--heldout", node.heldout, "Text that is only measured")->check(CLI::ExistingPath);
  command->add_option("--rank", node.rank, "Rank of this node's adapter, as in the run's [[node]]; 0: the pipeline's")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--model", node.model, "The base: a Hugging Face directory")
      ->required()
      ->check(CLI::ExistingDirectory);
  command->add_option("--device", node.device,
                      "auto, cpu or cuda:N of this machine; auto: the first CUDA device where there is one, and with "
                      "several processes each its own");
  command->add_option("--state", node.state, "Folder for what the node keeps between rounds")->required();
  command->add_option("--plugin-path", node.plugin_path, "Folder or file with plugins (repeatable)")
      ->allow_extra_args(false);
  add_trust_options(*command, node.trust);
  command->add_option("--give-up-after", node.give_up_after,
                      "Seconds without a coordinator before giving up (0: never)");
  command
      ->add_option("--call-limit", node.call_limit,
                   "Seconds that a call into a plugin may go on without a sign of progress; then it is asked to stop")
      ->check(CLI::Range(0.1, 1e7))
      ->capture_default_str();
  command->add_option("--call-grace", node.call_grace, "Seconds after that until the process ends, with exit code 71")
      ->check(CLI::Range(0.1, 1e7))
      ->capture_default_str();
  command->add_flag("--insecure-plaintext", node.insecure_plaintext,
                    "Connect beyond loopback although nothing is encrypted");
  command->add_option("--die-with-parent", all.parent)->group("");
  return command;
}

CLI::App* add_check(CLI::App& program, Commands& all) {
  auto* check =
      program.add_subcommand("check", "Say everything that is wrong with a pipeline file before anything runs");
  check->add_option("config", all.check.pipeline.file, "Pipeline file (TOML)")->required();
  check->add_flag("--explain", all.check.explain,
                  "Also print every value and where it comes from, bytes, memory and disk");
  check->add_flag("--json", all.check.json, "One JSON object instead of text");
  add_pipeline_options(*check, all.check.pipeline);
  return check;
}

int run(int argc, char** argv) {
  CLI::App program{
      "Hansa federates the fine-tuning of language models: silos train one model, no silo's text leaves it.", "hansa"};
  program.set_version_flag("--version", build_text());
  program.require_subcommand(1);
  Commands all;
  auto* run = add_run(program, all);
  auto* check = add_check(program, all);
  auto* plugins = add_plugins_command(program, all.plugins);
  SignCommands signing(*plugins);
  ConformanceCommand conformance(*plugins, program);
  auto* coordinator = add_coordinator(program, all);
  auto* node = add_node(program, all);
  auto* schema = program.add_subcommand("schema", "JSON Schema of pipeline files, from all plugins found: for editors")
                     ->footer(
                         "Example: hansa schema > pipeline.schema.json; taplo lint --schema "
                         "file://$PWD/pipeline.schema.json my.toml");
  std::vector<std::filesystem::path> schema_plugins;
  config::PluginsSection schema_trust;
  schema->add_option("--plugin-path", schema_plugins, "Folder or file with plugins (repeatable)")
      ->allow_extra_args(false);
  add_trust_options(*schema, schema_trust);
  PrivacyCommand privacy(program);
  DataCommand data(program);
  ModelCommands models(program);
  ExportCommand exporting(program);

  // Parts of other commands, run as processes of their own.
  auto* initial = program.add_subcommand("initial-version", "Write version 0 of a pipeline's adapter")->group("");
  initial->add_option("config", all.initial.file)->required();
  initial->add_option("--out", all.initial_out)->required();
  initial->add_option("--rank", all.initial_rank);
  add_pipeline_options(*initial, all.initial);
  auto* alone = program.add_subcommand("train-alone", "Train one silo's local-only baseline")->group("");
  alone->add_option("config", all.alone.file)->required();
  alone->add_option("--node", all.alone_node)->required();
  alone->add_option("--journal", all.alone_journal)->required();
  alone->add_option("--out", all.alone_out)->required();
  for (auto* part : {initial, alone}) part->add_option("--die-with-parent", all.parent);
  add_pipeline_options(*alone, all.alone);

  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : 2;
  }
  if (all.parent > 0) {
    die_with_parent(SIGTERM, all.parent);
    all.coordinator.warnings = Warnings::Hidden;
  }

  if (*check) return check_command(all.check, std::cout);
  if (*schema) {
    StrategyRegistry registry;
    registry.set_trust(policy_of(schema_trust));
    registry.scan(search_paths(schema_plugins, {}));
    std::cout << config::json_schema(registry);
    return 0;
  }
  if (conformance.chosen()) return conformance.run(std::cout, std::cerr);
  if (signing.chosen()) return signing.run(std::cout, std::cerr);  // loads nothing
  if (*plugins) {
    StrategyRegistry registry;
    registry.set_trust(policy_of(all.plugins.trust));
    registry.scan(search_paths(all.plugins.plugin_path, {}));
    return run_plugins(all.plugins, registry, std::cout, std::cerr);
  }
  if (*run) {
    if (all.resume_dir.empty() == all.run.pipeline.file.empty()) {
      std::cerr << "hansa run: give either a pipeline file or --resume DIR (see hansa run --help)\n";
      return 2;
    }
    if (all.resume_dir.empty() && !all.run.without_nodes.empty()) {
      std::cerr << "hansa run: --without-node goes with --resume; a new run takes its nodes from the pipeline file\n";
      return 2;
    }
    if (!all.resume_dir.empty()) {
      all.run.resume = true;
      all.run.run_dir = all.resume_dir;
    }
    return run_command(all.run);
  }
  if (*coordinator) return coordinator_command(all.coordinator);
  if (*node) return node_command(all.node);
  if (privacy.chosen()) return privacy.run(std::cout);
  if (data.chosen()) return data.run(std::cin, std::cout, std::cerr);
  if (models.chosen()) return models.run();
  if (exporting.chosen()) return exporting.run();
  if (*initial) return initial_version_command(all.initial, all.initial_out, all.initial_rank);
  return train_alone_command(all.alone, all.alone_node, all.alone_journal, all.alone_out);
}

}  // namespace
}  // namespace hansa

int main(int argc, char** argv) {
  hansa::name_crashes();
  try {
    return hansa::run(argc, argv);
  } catch (const c10::Error& error) {
    std::cerr << "error: " << error.what_without_backtrace() << '\n';
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
  }
  return 1;
}
