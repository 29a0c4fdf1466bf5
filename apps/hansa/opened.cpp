#include "opened.hpp"

#include <algorithm>
#include <iostream>
#include <set>

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

std::vector<const config::ComponentSpec*> components_of(const config::RunSpec& spec) {
  std::vector<const config::ComponentSpec*> all{
      &spec.model,   &spec.adapter,    &spec.trainer,          &spec.data,     &spec.evaluator,
      &spec.privacy, &spec.aggregator, &spec.server_optimizer, &spec.selector, &spec.round_policy};
  for (const auto& codec : spec.codecs) all.push_back(&codec);
  for (const auto& codec : spec.downlink) all.push_back(&codec);
  std::erase_if(all, [](const auto* one) { return !one->component; });
  return all;
}

}  // namespace

std::vector<wire::PluginRef> shared_plugins(const config::RunSpec& spec, const StrategyRegistry& registry) {
  std::vector<const config::ComponentSpec*> shared{&spec.model, &spec.adapter, &spec.trainer, &spec.data};
  for (const auto& codec : spec.codecs) shared.push_back(&codec);
  if (spec.privacy.component) shared.push_back(&spec.privacy);
  if (spec.evaluator.component) shared.push_back(&spec.evaluator);
  std::vector<wire::PluginRef> refs;
  for (const auto* component : shared) {
    const auto& file = registry.file_of(*component->component);
    const wire::PluginRef ref{file.plugin->id, file.plugin->version, {}};
    const bool seen = std::any_of(refs.begin(), refs.end(), [&](const auto& one) { return one.id == ref.id; });
    if (!seen) refs.push_back({ref.id, ref.version, file.sha256});
  }
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
  std::set<std::string> used;
  for (const auto* one : components_of(opened.spec)) used.insert(opened.registry->file_of(*one->component).plugin->id);
  nlohmann::ordered_json plugins = nlohmann::ordered_json::array();
  for (const auto& file : opened.registry->files()) {
    if (file.outcome != Outcome::Loaded) continue;
    const bool of_this_run = used.contains(file.plugin->id);
    plugins.push_back(
        {{"id", file.plugin->id}, {"version", file.plugin->version}, {"sha256", file.sha256}, {"used", of_this_run}});
    if (file.voucher) plugins.back()["vouched_by"] = file.voucher->text();
  }
  const nlohmann::ordered_json run{{"build", build_text()}, {"seed", opened.spec.run.seed}, {"plugins", plugins}};
  write_file_atomically(directory.path() / "run.json", run.dump(2) + "\n", Durability::Process);
  write_file_atomically(directory.config(), config::to_resolved_toml(opened.spec), Durability::Process);
}

}  // namespace hansa
