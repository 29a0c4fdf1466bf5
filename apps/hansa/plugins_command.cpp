#include "plugins_command.hpp"

#include <algorithm>
#include <ostream>

#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "config/diagnostic.hpp"
#include "plugin_host/describe.hpp"

namespace hansa {
namespace {

int list(const PluginsOptions& options, const StrategyRegistry& registry, std::ostream& out, std::ostream& err) {
  const auto rows = options.all ? Rows::ComponentsAndFiles : Rows::Components;
  out << (options.json ? list_json(registry) : list_text(registry, rows));
  const auto& files = registry.files();
  const auto refused =
      std::count_if(files.begin(), files.end(), [](const auto& file) { return file.outcome == Outcome::Refused; });
  if (refused == 0) return 0;
  err << fmt::format("{} refused{}\n", refused == 1 ? "one file was" : fmt::format("{} files were", refused),
                     options.all || options.json ? "" : "; `hansa plugins list --all` says why");
  return 1;
}

int describe(const PluginsOptions& options, const StrategyRegistry& registry, std::ostream& out, std::ostream& err) {
  const auto found = find_any(registry, options.name);
  std::string_view separator;
  for (const auto* component : found) {
    out << separator << (options.json ? describe_json(registry, *component) : describe_text(registry, *component));
    separator = options.json ? "" : "\n";
  }
  if (!found.empty()) return 0;

  err << fmt::format("no loaded plugin or component is named '{}'\n", options.name);
  std::vector<std::string> known;
  for (const auto& kind : registry.kinds())
    for (auto& name : registry.names(kind)) known.push_back(std::move(name));
  if (const auto near = config::near_names(options.name, known); !near.empty())
    err << fmt::format("help: did you mean {}?\n", config::quoted_list(near, "or"));
  for (const auto& file : registry.files())
    if (file.outcome == Outcome::Refused && file.path.stem() == fmt::format("hansa_{}", options.name))
      err << fmt::format("note: {} {}\n", file.path.string(), file.why);
  err << "help: `hansa plugins list --all` shows every file looked at\n";
  return 1;
}

}  // namespace

CLI::App* add_plugins_command(CLI::App& parent, PluginsOptions& options) {
  auto* plugins = parent.add_subcommand("plugins", "What algorithms are installed");
  plugins->require_subcommand(1);
  const auto common = [&](CLI::App* command) {
    command->add_flag("--json", options.json, "Machine-readable");
    command
        ->add_option("--plugin-path", options.plugin_path,
                     "Look here first: a directory or a .so file; may be repeated")
        ->allow_extra_args(false);
  };
  auto* list_command = plugins->add_subcommand("list", "All components");
  list_command->add_flag("--all", options.all, "Also every file looked at: loaded, skipped or refused, and why");
  list_command->callback([&options] { options.action = PluginsOptions::Action::List; });
  common(list_command);
  auto* describe_command =
      plugins->add_subcommand("describe", "One component: its parameters, defaults, ranges, papers");
  describe_command->add_option("name", options.name, "fedavg, aggregator/fedavg, or a plugin's id")->required();
  describe_command->callback([&options] { options.action = PluginsOptions::Action::Describe; });
  common(describe_command);
  return plugins;
}

int run_plugins(const PluginsOptions& options, const StrategyRegistry& registry, std::ostream& out, std::ostream& err) {
  return options.action == PluginsOptions::Action::List ? list(options, registry, out, err)
                                                        : describe(options, registry, out, err);
}

}  // namespace hansa
