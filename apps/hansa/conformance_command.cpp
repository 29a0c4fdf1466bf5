#include "conformance_command.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "config/component_params.hpp"
#include "conformance/session.hpp"
#include "plugin_host/describe.hpp"
#include "processes.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;
using conformance::Verdict, conformance::Row;

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "hansa-check-XXXXXX").string();
    if (!mkdtemp(name.data())) throw Error("cannot make a temporary folder in " + fs::temp_directory_path().string());
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string kind_of(const HansaComponent& component) {
  const std::string whole = component.kind;
  return whole.substr(0, whole.find('/'));
}
std::string full_name(const HansaComponent& component) { return kind_of(component) + "/" + component.id; }

// The file first, then whatever its partners and inner components may be.
void scan_for(StrategyRegistry& registry, const std::vector<fs::path>& files,
              const std::vector<fs::path>& plugin_path) {
  for (const auto& file : files) registry.scan({fs::absolute(file).lexically_normal(), "the command line"});
  registry.scan(search_paths(plugin_path, {}));
}

// Folders stand for the plugins in them, by name.
std::vector<fs::path> plugin_files(const std::vector<fs::path>& given) {
  std::vector<fs::path> files;
  for (const auto& path : given) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    const auto first = static_cast<std::ptrdiff_t>(files.size());
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.path().extension() == ".so") files.push_back(entry.path());
    std::sort(files.begin() + first, files.end());
  }
  return files;
}

struct Counts {
  std::size_t held = 0, broken = 0, not_concerned = 0;
  void add(const Row& row) {
    ++(row.verdict == Verdict::Held ? held : row.verdict == Verdict::Broken ? broken : not_concerned);
  }
};

void print(std::ostream& out, const std::string& label, const fs::path& file, const std::vector<Row>& rows) {
  out << fmt::format("{} ({})\n", label, file.string());
  for (const auto& row : rows) {
    const bool silent = row.verdict == Verdict::NotConcerned;
    const char* word = row.verdict == Verdict::Held ? "holds" : silent ? "-" : "BROKEN";
    out << fmt::format("  {:<8}{:<15}{}\n", word, row.check, silent ? row.why : row.promise);
    if (row.verdict != Verdict::Broken) continue;
    out << fmt::format("  {:23}{}\n", "", row.why);
    if (row.seed) out << fmt::format("  {:23}seed {}, {}\n", "", *row.seed, row.input);
  }
}
nlohmann::ordered_json to_json(const std::string& label, const HansaComponent& component, const fs::path& file,
                               const std::vector<Row>& rows) {
  auto checks = nlohmann::ordered_json::array();
  for (const auto& row : rows) {
    nlohmann::ordered_json check{{"check", row.check},
                                 {"promise", row.promise},
                                 {"outcome", conformance::name_of(row.verdict)},
                                 {"why", row.why},
                                 {"seconds", row.seconds}};
    if (row.seed) {
      check["seed"] = *row.seed;
      check["input"] = row.input;
    }
    checks.push_back(std::move(check));
  }
  return {
      {"component", full_name(component)}, {"label", label}, {"file", file.string()}, {"checks", std::move(checks)}};
}

}  // namespace

ConformanceCommand::ConformanceCommand(CLI::App& plugins, CLI::App& program)
    : command_(plugins.add_subcommand("check", "Does a plugin keep what its kind and traits promise?")),
      child_command_(program.add_subcommand("check-component", "Part of `plugins check`: one component")->group("")) {
  for (auto* command : {command_, child_command_}) {
    command->add_option("file", options_.files, "Plugin files, or folders of them")
        ->required()
        ->check(CLI::ExistingPath);
    command->add_option("--component", options_.component,
                        "Only this one of the file's components: median, aggregator/median");
    command
        ->add_option("--set", options_.set,
                     "A parameter of the component: key=value, as in a pipeline file (repeatable)")
        ->allow_extra_args(false);
    command->add_option("--with", options_.with, "Partner for node-side kinds: adapter=lora, model=llama (repeatable)")
        ->allow_extra_args(false);
    command
        ->add_option("--checkpoint", options_.checkpoint,
                     "Hugging Face directory to try with (default: a tiny one, made on the spot)")
        ->check(CLI::ExistingDirectory);
    command->add_option("--only", options_.only, "Only the check of this name");
    command->add_option("--seed", options_.seed, "Of the inputs that are tried");
    command
        ->add_option("--plugin-path", options_.plugin_path,
                     "Where partners and inner components are: a directory or a .so file (repeatable)")
        ->allow_extra_args(false);
  }
  command_->add_option("--limit", options_.limit, "Seconds that one check may take")->check(CLI::PositiveNumber);
  command_->add_flag("--json", options_.json, "Machine-readable");
  command_->footer(
      "Each component runs in a process of its own, so a crash costs one check. A broken promise is shown with the "
      "seed and the smallest\n"
      "input that breaks it. Example: hansa plugins check build/lib/hansa/plugins/hansa_trimmed_mean.so --set "
      "keep=0.8");
  child_command_->add_option("--first", child_options_.first);
  child_command_->add_option("--report", child_options_.report)->required();
  child_command_->add_option("--scratch", child_options_.scratch)->required();
  child_command_->add_option("--die-with-parent", child_options_.parent)->required();
}

bool ConformanceCommand::chosen() const { return *command_ || *child_command_; }

int ConformanceCommand::run(std::ostream& out, std::ostream& err) const {
  for (const auto& partner : options_.with)
    if (const auto sign = partner.find('='); sign == std::string::npos || sign == 0) {
      err << fmt::format("error: --with {}: write --with kind=name, such as --with adapter=lora\n", partner);
      return 2;
    }
  return *child_command_ ? child() : check(out, err);
}

std::vector<std::string> ConformanceCommand::child_arguments(const fs::path& file, const std::string& component) const {
  std::vector<std::string> arguments{
      this_program().string(),      "check-component", file.string(), "--component", component, "--seed",
      std::to_string(options_.seed)};
  for (auto& argument : die_with_this_process()) arguments.push_back(std::move(argument));
  const auto pass = [&](const char* option, const std::string& value) {
    arguments.emplace_back(option);
    arguments.push_back(value);
  };
  for (const auto& one : options_.set) pass("--set", one);
  for (const auto& one : options_.with) pass("--with", one);
  for (const auto& one : options_.plugin_path) pass("--plugin-path", one.string());
  if (!options_.checkpoint.empty()) pass("--checkpoint", options_.checkpoint.string());
  if (!options_.only.empty()) pass("--only", options_.only);
  return arguments;
}

std::vector<Row> ConformanceCommand::rows_of(const StrategyRegistry& registry, const HansaComponent& component,
                                             const fs::path& file, std::ostream& err) const {
  const auto read = config::read_component(registry, kind_of(component), component.id, options_.set);
  if (config::has_errors(read.diagnostics))
    return {{"constructs", "It can be made with these parameters.", Verdict::Broken,
             "give what is missing with --set:\n" + config::render(read.diagnostics)}};
  const ScratchFolder scratch;
  fs::create_directory(scratch.path() / "work");
  auto arguments = child_arguments(file, full_name(component));
  arguments.insert(arguments.end(), {"--scratch", (scratch.path() / "work").string()});
  const bool shows = !options_.json && isatty(STDERR_FILENO);
  const auto progress = [&](const std::string& check) {
    if (shows) err << fmt::format("\r\x1b[K{}: {}", registry.label_of(component), check) << std::flush;
  };
  auto rows = conformance::watch_checks(
      {std::move(arguments), scratch.path(), std::chrono::duration<double>(options_.limit), progress});
  if (shows) err << "\r\x1b[K";
  return rows;
}

int ConformanceCommand::check(std::ostream& out, std::ostream& err) const {
  const auto files = plugin_files(options_.files);
  StrategyRegistry registry;
  scan_for(registry, files, options_.plugin_path);
  Counts counts;
  std::size_t looked_at = 0;
  auto components = nlohmann::ordered_json::array(), refusals = nlohmann::ordered_json::array();
  for (const auto& given : files) {
    const auto path = fs::weakly_canonical(given);  // as the registry has it
    const auto file = std::find_if(registry.files().begin(), registry.files().end(),
                                   [&](const auto& row) { return row.path == path; });
    if (file == registry.files().end() || !file->plugin) {
      const auto why = file == registry.files().end() ? std::string("was not looked at") : file->why;
      err << fmt::format("error: {} {}\n", given.string(), why);
      refusals.push_back({{"file", given.string()}, {"why", why}});
      continue;
    }
    for (std::uint32_t i = 0; i < file->plugin->component_count; ++i) {
      const auto& component = *file->plugin->components[i];
      const auto& wanted = options_.component;
      if (!wanted.empty() && wanted != component.id && wanted != full_name(component)) continue;
      ++looked_at;
      const auto rows = rows_of(registry, component, path, err);
      for (const auto& row : rows) counts.add(row);
      if (options_.json)
        components.push_back(to_json(registry.label_of(component), component, given, rows));
      else
        print(out, registry.label_of(component), given, rows);
    }
  }
  if (looked_at == 0 && refusals.empty()) {
    err << fmt::format("error: {}; `hansa plugins list --plugin-path FILE` shows what is in one\n",
                       files.empty() ? "there is no plugin (.so) here"
                                     : fmt::format("no component is named '{}' in these files", options_.component));
    return 2;
  }
  if (options_.json)
    out << nlohmann::ordered_json{{"components", components},
                                  {"refused", refusals},
                                  {"held", counts.held},
                                  {"broken", counts.broken},
                                  {"not_concerned", counts.not_concerned}}
               .dump(2)
        << '\n';
  else if (looked_at > 0)
    out << fmt::format("{} hold, {} broken, {} not concerned\n", counts.held, counts.broken, counts.not_concerned);
  return counts.broken || !refusals.empty() ? 1 : 0;
}

int ConformanceCommand::child() const {
  die_with_parent(SIGKILL, child_options_.parent);
  at::set_num_threads(1);  // as a node has by default
  StrategyRegistry registry;
  scan_for(registry, options_.files, options_.plugin_path);
  const auto sign = options_.component.find('/');
  const auto* component = registry.find(options_.component.substr(0, sign), options_.component.substr(sign + 1));
  if (!component) throw Error(fmt::format("there is no component '{}'", options_.component));
  auto read = config::read_component(registry, kind_of(*component), component->id, options_.set);
  conformance::Subject subject{registry, *component,          std::move(read.params), options_.seed,
                               {},       options_.checkpoint, child_options_.scratch};
  for (const auto& partner : options_.with)
    subject.with[partner.substr(0, partner.find('='))] = partner.substr(partner.find('=') + 1);
  return conformance::run_checks(subject, child_options_.first, options_.only, child_options_.report);
}

}  // namespace hansa
