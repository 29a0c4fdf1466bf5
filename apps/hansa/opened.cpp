#include "opened.hpp"

#include <algorithm>
#include <iostream>

#include <fmt/format.h>
#include <hf/safetensors.hpp>
#include <hf/tokenizer.hpp>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "config/load.hpp"

namespace hansa {

std::unique_ptr<OpenedPipeline> open_pipeline(const PipelineRequest& request, int& exit_code, Warnings warnings) {
  auto opened = std::make_unique<OpenedPipeline>();
  opened->registry = std::make_unique<StrategyRegistry>();
  auto checked = check_pipeline(request, *opened->registry);
  if (warnings == Warnings::Shown || !checked.loaded.ok()) std::cerr << config::render(checked.loaded.diagnostics);
  exit_code = checked.loaded.exit_code();
  if (!checked.loaded.ok()) return nullptr;
  opened->spec = std::move(checked.loaded.spec);
  opened->shape = std::move(*checked.shape);
  return opened;
}

std::string build_text() {
  const auto note = host_note();
  const auto* torch = find(note, "torch");
  return fmt::format("hansa {}, torch {}", HANSA_VERSION, torch ? *torch : "?");
}

namespace {

// The plugin files of components, and of those that their parameters name (`inner = { use = "…" }`); each once, in that order.
class UsedFiles {
 public:
  explicit UsedFiles(const StrategyRegistry& registry) : registry_(registry) {}

  void add(const config::ComponentSpec& spec) {
    if (spec.component) add(*spec.component, spec.params);
  }
  void add(const std::vector<config::ComponentSpec>& specs) {
    for (const auto& spec : specs) add(spec);
  }
  const std::vector<const PluginFile*>& all() const { return files_; }

 private:
  void add(const HansaComponent& component, const Value& params) {
    const auto* file = &registry_.file_of(component);
    if (std::ranges::find(files_, file) == files_.end()) files_.push_back(file);
    for (std::uint32_t i = 0; i < component.param_count; ++i)
      if (const auto* value = params.find(component.params[i]->name)) add(*component.params[i], *value);
  }
  void add(const HansaParam& param, const Value& value) {
    if (param.type == HANSA_COMPONENT) {
      if (const auto* inner = registry_.find(param.component_kind, text_of(value))) add(*inner, value);
    } else if (param.type == HANSA_LIST) {
      for (std::size_t i = 0; i < value.size(); ++i) add(*param.element, value.at(i));
    } else if (param.type == HANSA_TABLE) {
      for (std::uint32_t i = 0; i < param.field_count; ++i)
        if (const auto* field = value.find(param.fields[i]->name)) add(*param.fields[i], *field);
    }
  }

  const StrategyRegistry& registry_;
  std::vector<const PluginFile*> files_;
};

// What runs on nodes, so that they must have the coordinator's files.
UsedFiles files_on_nodes(const config::RunSpec& spec, const StrategyRegistry& registry) {
  UsedFiles used(registry);
  for (const auto* one : {&spec.model, &spec.adapter, &spec.trainer, &spec.data}) used.add(*one);
  used.add(spec.codecs);
  used.add(spec.downlink);
  used.add(spec.privacy);
  used.add(spec.evaluator);
  return used;
}

}  // namespace

std::vector<wire::PluginRef> shared_plugins(const config::RunSpec& spec, const StrategyRegistry& registry) {
  const auto used = files_on_nodes(spec, registry);
  std::vector<wire::PluginRef> refs;
  for (const auto* file : used.all()) refs.push_back({file->plugin->id, file->plugin->version, file->sha256});
  return refs;
}

Digests digests_of(const config::RunSpec& spec) {
  const auto& path = spec.model_host.path;
  Digests digests;
  digests.base = spec.model_host.initialise ? sha256_file_hex(path / "config.json") : hf::checkpoint_digest(path);
  if (hf::has_tokenizer(path)) digests.tokenizer = hf::tokenizer_digest(path);
  return digests;
}

void describe_run(const RunDirectory& directory, const OpenedPipeline& opened) {
  auto used = files_on_nodes(opened.spec, *opened.registry);
  const auto& spec = opened.spec;
  for (const auto* one : {&spec.aggregator, &spec.server_optimizer, &spec.selector, &spec.round_policy}) used.add(*one);
  nlohmann::ordered_json plugins = nlohmann::ordered_json::array();
  for (const auto& file : opened.registry->files()) {
    if (file.outcome != Outcome::Loaded) continue;
    const bool of_this_run = std::ranges::find(used.all(), &file) != used.all().end();
    plugins.push_back(
        {{"id", file.plugin->id}, {"version", file.plugin->version}, {"sha256", file.sha256}, {"used", of_this_run}});
    if (file.voucher) plugins.back()["vouched_by"] = file.voucher->text();
  }
  const nlohmann::ordered_json run{{"build", build_text()}, {"seed", opened.spec.run.seed}, {"plugins", plugins}};
  write_file_atomically(directory.path() / "run.json", run.dump(2) + "\n", Durability::Process);
  write_file_atomically(directory.config(), config::to_resolved_toml(opened.spec), Durability::Process);
}

}  // namespace hansa
