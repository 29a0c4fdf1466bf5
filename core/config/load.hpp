// From a TOML file to a RunSpec. Called at the start of every command that runs a pipeline, on the main thread. Problems of
// the file are diagnostics, never exceptions; a file that cannot be read is one too (with `unreadable` set).
//
//   auto file = read_pipeline("configs/quickstart.toml", {.set = {"run.rounds=3"}});
//   registry.set_trust(… file.plugins(problems) …);  // whose plugins may run at all
//   registry.scan(… file.plugin_path() …);           // which plugins exist decides what the rest means
//   LoadResult loaded = resolve(std::move(file), registry);
//   check_rules(loaded, registry);                   // pipeline/rules.hpp
//   if (!loaded.ok()) { std::cerr << render(loaded.diagnostics); return loaded.exit_code(); }
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <hansa/catalog.hpp>

#include "config/diagnostic.hpp"
#include "config/run_spec.hpp"

namespace hansa::config {

struct LoadOptions {
  std::vector<std::string> set;             // "a.b=c" each, applied in order after all includes
  std::filesystem::path working_directory;  // relative paths given by --set start here; "": the process's
};

struct Setting {      // one resolved value and where it comes from, in the order of the sections
  std::string key;    // "aggregator.weighting", "codec.0.use", "node.2.data"
  std::string value;  // as TOML; "(secret)" for a secret
  Position where;     // file "": a default
  std::uint32_t width = 1;
};

class PipelineFile {  // the text, its includes and overrides, merged but not yet understood
 public:
  PipelineFile();
  ~PipelineFile();
  PipelineFile(PipelineFile&&) noexcept;
  PipelineFile& operator=(PipelineFile&&) noexcept;
  // Absolute directories; problems with the key itself are reported by resolve().
  std::vector<std::filesystem::path> plugin_path() const;
  // [plugins] alone, which has to be understood before any plugin is looked at. What is wrong with it is added to the
  // diagnostics; resolve() says the same again.
  PluginsSection plugins(std::vector<Diagnostic>&) const;
  bool readable() const;  // false: no such file, or a syntax error: no need to look for plugins
  struct State;
  State& state() { return *state_; }
  const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

struct LoadResult {
  RunSpec spec;  // whole only when ok(): with errors it holds what could be understood
  std::vector<Diagnostic> diagnostics;
  std::vector<Setting> settings;
  bool unreadable = false;
  bool parsed = true;  // false: a syntax error ended the reading, so nothing else was looked at

  bool ok() const { return !unreadable && !has_errors(diagnostics); }
  int exit_code() const { return unreadable ? 2 : has_errors(diagnostics) ? 1 : 0; }
  // Adds a diagnostic at the place of `key`, or of the nearest enclosing section that was written.
  void report(Severity, std::string_view key, std::string what, std::string help, int rule = 0);
  std::shared_ptr<const PipelineFile> file;  // keeps the source lines
};

PipelineFile read_pipeline(const std::filesystem::path&, const LoadOptions& = {});
LoadResult resolve(PipelineFile, const ComponentCatalog&);
// What can be said of a file without looking at any plugin: what reading it showed, and the problems given.
LoadResult unresolved(PipelineFile, std::vector<Diagnostic> problems);
LoadResult load(const std::filesystem::path&, const LoadOptions&, const ComponentCatalog&);

// The part that decides the result and that nodes need: no paths, no list of nodes, no names. Two pipelines with the same
// canonical JSON train the same adapter from the same silos. Keys sorted, no white space.
std::string canonical_json(const RunSpec&);
std::string pipeline_digest(const RunSpec&);  // SHA-256 of it, 64 hex digits
// What a node makes of the JSON that a coordinator sent. Throws Error naming what is missing here (a plugin) or wrong.
RunSpec spec_from_canonical(std::string_view json, const ComponentCatalog&);

// A TOML text with every value explicit and every path absolute, which loads to the same RunSpec. Secrets are left out.
std::string to_resolved_toml(const RunSpec&);

}  // namespace hansa::config
