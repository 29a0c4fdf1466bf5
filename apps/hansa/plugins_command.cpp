#include "plugins_command.hpp"

#include <algorithm>
#include <ostream>

#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "config/diagnostic.hpp"
#include "new_plugin.hpp"
#include "plugin_host/describe.hpp"
#include "plugin_host/kinds.hpp"
#include "trust_options.hpp"

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
  err << "help: `hansa plugins list --all` shows every file looked at; --plugin-path names another folder to look in\n";
  return 1;
}

int kinds(const PluginsOptions& options, const StrategyRegistry& registry, std::ostream& out) {
  auto all = nlohmann::ordered_json::array();
  for (const auto& facts : known_kinds()) {
    const auto names = registry.names(facts.kind);
    all.push_back({{"kind", facts.kind},
                   {"interface", facts.interface},
                   {"header", facts.header},
                   {"section", facts.section},
                   {"decides", facts.decides},
                   {"template", (template_folder() / facts.kind).string()},
                   {"components", names}});
    if (!options.json)
      out << fmt::format("{:<18}{}\n{:18}{}, {}\n{:18}here: {}\n", facts.kind, facts.decides, "", facts.header,
                         facts.section, "", names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  if (options.json) out << all.dump(2) << '\n';
  return 0;
}

int write_new(const PluginsOptions& options, std::ostream& out, std::ostream& err) {
  const NewPlugin wanted{options.kind, options.name,
                         options.directory.empty() ? std::filesystem::path(options.name) : options.directory};
  try {
    const auto templates = template_folder();
    for (const auto& file : write_plugin(wanted, templates)) out << (wanted.directory / file).string() << '\n';
    // Beside an installed program the package is at hand.
    const auto prefix = templates.parent_path().parent_path().parent_path();
    const bool package = std::filesystem::exists(prefix / "lib" / "cmake" / "hansa" / "hansaConfig.cmake");
    const auto folder = wanted.directory.string();
    out << fmt::format(
        "\nBuild, test and look at it:\n  cmake -S {0} -B {0}/build -DCMAKE_PREFIX_PATH={1}\n  cmake --build "
        "{0}/build\n"
        "  ctest --test-dir {0}/build --output-on-failure\n  hansa plugins check "
        "{0}/build/lib/hansa/plugins/hansa_{2}.so\n"
        "  hansa plugins describe {2} --plugin-path "
        "{0}/build/lib/hansa/plugins\n",
        folder, package ? prefix.string() : "/where/hansa/is/installed", wanted.name);
    return 0;
  } catch (const Error& error) {
    err << "error: " << error.what() << '\n';
    return 1;
  }
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
    add_trust_options(*command, options.trust);
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
  auto* kinds_command = plugins->add_subcommand("kinds", "What kinds of algorithms there are, and what each decides");
  kinds_command->callback([&options] { options.action = PluginsOptions::Action::Kinds; });
  common(kinds_command);
  auto* new_command = plugins->add_subcommand("new", "Write a complete project for a plugin of your own");
  new_command->add_option("kind", options.kind, "One of `hansa plugins kinds`")->required();
  new_command->add_option("name", options.name, "Lower-case letters, digits and _")->required();
  new_command->add_option("--dir", options.directory, "Where to write it (default: a new folder of that name)");
  new_command->callback([&options] { options.action = PluginsOptions::Action::New; });
  new_command->footer("Example: hansa plugins new aggregator trimmed_mean");
  return plugins;
}

int run_plugins(const PluginsOptions& options, const StrategyRegistry& registry, std::ostream& out, std::ostream& err) {
  switch (options.action) {
    case PluginsOptions::Action::List: return list(options, registry, out, err);
    case PluginsOptions::Action::Describe: return describe(options, registry, out, err);
    case PluginsOptions::Action::Kinds: return kinds(options, registry, out);
    case PluginsOptions::Action::New: return write_new(options, out, err);
  }
  return 1;
}

}  // namespace hansa
