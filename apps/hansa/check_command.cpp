#include "check_command.hpp"

#include <algorithm>
#include <ostream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/quantity.hpp"
#include "devices/devices.hpp"
#include "pipeline/exchange.hpp"
#include "pipeline/rules.hpp"
#include "trust_options.hpp"

namespace hansa {
namespace {

using config::bytes_text;
using config::LoadResult;
using config::Severity;
using pipeline::CostEstimate;

// The section that a failing component was named in: what creates it says "model llama 0.1.0: …".
std::string section_of(const PluginFailure& failure) {
  const auto kind = failure.component().substr(0, failure.component().find(' '));
  if (kind == "data_source") return "data.use";
  if (kind == "compressor") return "codec";
  return kind + (kind == "model" ? ".path" : ".use");
}

// Turns what a plugin throws while it looks at the pipeline into a diagnostic: at the plugin's section, or else at `key`.
template <class Call>
void reporting(LoadResult& loaded, std::string_view key, Call&& call) {
  try {
    call();
  } catch (const PluginFailure& failure) {
    loaded.report(Severity::Error, section_of(failure), fmt::format("{}: {}", failure.component(), failure.reason()),
                  "the plugin said so when it was asked to work with this pipeline");
  } catch (const Error& error) {
    loaded.report(Severity::Error, key, error.what(), "");
  }
}

void check_devices(LoadResult& loaded, const PipelineRequest& request) {
  const auto here = devices_here();
  const auto look = [&](const std::string& key, const std::string& asked) {
    if (const auto found = device_named(asked, here); !found)
      loaded.report(Severity::Error, key, fmt::format("`{}`: {}", key, found.error()),
                    "devices are this machine's own: --device, or --set model.device=…, says otherwise for one start");
  };
  look("model.device", loaded.spec.model_host.device);
  if (request.nodes_elsewhere) return;
  for (const auto& node : loaded.spec.nodes)
    if (!node.device.empty()) look(fmt::format("node.{}.device", node.listed), node.device);
}

std::string place_text(const config::Position& where) {
  if (where.file.empty()) return "default";
  return where.line == 0 ? where.file : fmt::format("{}:{}", where.file, where.line);
}

std::string in_section(const std::string& key) { return key.substr(0, key.rfind('.')); }

void print_settings(const LoadResult& loaded, std::ostream& out) {
  std::size_t width = 0;
  const auto text = [](const config::Setting& s) {
    return fmt::format("  {} = {}", s.key.substr(s.key.rfind('.') + 1), s.value);
  };
  constexpr std::size_t kWidest = 60;
  for (const auto& s : loaded.settings) width = std::max(width, std::min(text(s).size(), kWidest));
  std::string section;
  for (const auto& s : loaded.settings) {
    if (in_section(s.key) != section) out << fmt::format("\n[{}]\n", section = in_section(s.key));
    out << fmt::format("{:<{}}  # {}\n", text(s), width, place_text(s.where));
  }
}

void print_cost(const CostEstimate& cost, std::ostream& out) {
  out << fmt::format("\ntrained: {} tensor{} in {} group{}, {} parameters ({} in the base)\n", cost.tensor_count,
                     cost.tensor_count == 1 ? "" : "s", cost.group_count, cost.group_count == 1 ? "" : "s",
                     cost.parameters, cost.base_parameters);
  constexpr std::size_t kShown = 20;
  for (std::size_t i = 0; i < std::min(kShown, cost.tensors.size()); ++i) {
    const auto& row = cost.tensors[i];
    out << fmt::format("  {:<52} {:<20} x {:<4} {:>10}\n", row.name, row.type, row.count,
                       bytes_text(static_cast<double>(row.bytes)));
  }
  if (cost.tensors.size() > kShown) out << fmt::format("  … and {} more kinds\n", cost.tensors.size() - kShown);

  const auto bytes = [](std::uint64_t count) { return bytes_text(static_cast<double>(count)); };
  out << "\nsent by each client and round, whole packets:   typically       at most\n";
  for (const auto& row : cost.up)
    out << fmt::format("  up, after {:<34} {:>12}  {:>12}\n", row.stage, bytes(row.typical), bytes(row.most));
  out << fmt::format("  down, {:<38} {:>12}  {:>12}\n", "what moved of the model; all of it", bytes(cost.down_typical),
                     bytes(cost.down_most));
  out << fmt::format("  clients in a round: {:.4g} expected of {}, {} at most\n", cost.cohort, cost.population,
                     cost.most_cohort);
  out << "\nneeded, memory above an idle process (which takes about 110 MB) and without the activations of a batch:\n";
  const auto line = [&](std::string_view who, std::uint64_t memory, std::uint64_t disk) {
    out << fmt::format("  {:<30} memory {:>10}   disk {:>10}\n", who, bytes(memory), bytes(disk));
  };
  if (cost.run_processes == 1) {
    line("the simulation, one process", cost.run_memory, cost.run_disk);
  } else {
    line("coordinator", cost.coordinator_memory, cost.coordinator_disk);
    out << fmt::format("  {:<30} memory {:>10}   in a process of its own, once\n", "  its first version",
                       bytes(cost.first_version_memory));
    line("each node", cost.node_memory, cost.node_disk);
    line(fmt::format("hansa run, {} processes", cost.run_processes), cost.run_memory, cost.run_disk);
  }
  for (const auto& remark : cost.remarks) out << fmt::format("  {}\n", remark);
}

nlohmann::ordered_json json_of(const CostEstimate& cost) {
  nlohmann::ordered_json json;
  json["parameters"] = cost.parameters;
  json["base_parameters"] = cost.base_parameters;
  for (const auto& row : cost.tensors)
    json["tensors"].push_back({{"name", row.name},
                               {"type", row.type},
                               {"count", row.count},
                               {"elements", row.elements},
                               {"bytes", row.bytes}});
  for (const auto& row : cost.up)
    json["up"].push_back({{"stage", row.stage}, {"typical_bytes", row.typical}, {"most_bytes", row.most}});
  json["down_typical_bytes"] = cost.down_typical;
  json["down_most_bytes"] = cost.down_most;
  json["expected_cohort"] = cost.cohort;
  json["most_cohort"] = cost.most_cohort;
  json["population"] = cost.population;
  json["coordinator_memory_bytes"] = cost.coordinator_memory;
  json["coordinator_disk_bytes"] = cost.coordinator_disk;
  json["node_memory_bytes"] = cost.node_memory;
  json["first_version_memory_bytes"] = cost.first_version_memory;
  json["node_disk_bytes"] = cost.node_disk;
  json["run_processes"] = cost.run_processes;
  json["run_memory_bytes"] = cost.run_memory;
  json["run_disk_bytes"] = cost.run_disk;
  json["remarks"] = cost.remarks;
  return json;
}

std::string as_json(const LoadResult& loaded, const std::optional<CostEstimate>& cost, const CheckOptions& options) {
  auto json = nlohmann::ordered_json::parse(config::render_json(loaded.diagnostics));
  if (!options.explain) return json.dump(2) + "\n";
  for (const auto& s : loaded.settings)
    json["settings"].push_back({{"key", s.key},
                                {"value", s.value},
                                {"file", s.where.file},
                                {"line", s.where.line},
                                {"column", s.where.column}});
  if (loaded.ok()) json["digest"] = config::pipeline_digest(loaded.spec);
  if (cost) json["cost"] = json_of(*cost);
  return json.dump(2) + "\n";
}

}  // namespace

namespace {

struct Trust {
  config::PluginsSection said;        // by file and command line together
  std::optional<TrustPolicy> policy;  // nothing: what the file says is wrong, so that nothing may be loaded
  std::vector<config::Diagnostic> problems;
  std::vector<std::pair<std::string, std::string>> bad_keys;  // where, and what is wrong
};

Trust settle_trust(const config::PipelineFile& file, const config::PluginsSection& command_line) {
  Trust trust;
  auto& said = trust.said = file.plugins(trust.problems);
  if (config::has_errors(trust.problems)) return trust;
  const bool required = said.require_signed || command_line.require_signed;
  if (!command_line.keys.empty() || !command_line.digests.empty()) said = command_line;
  said.require_signed = required;
  if (said.keys == command_line.keys && said.digests == command_line.digests) {
    trust.policy = policy_of(said);
    for (auto& key : said.keys)
      if (!key.starts_with(kInlineKey)) key = std::filesystem::absolute(key).string();
    return trust;
  }
  TrustPolicy policy{required, {}, {}};
  for (const auto& digest : said.digests) policy.add_digest(digest);
  for (std::size_t i = 0; i < said.keys.size(); ++i)
    if (const auto why = policy.add_key(said.keys[i])) {
      auto where = fmt::format("plugins.keys.{}", i);
      auto what = fmt::format("`{}`: {} {}", where, said.keys[i], *why);
      trust.bad_keys.emplace_back(std::move(where), std::move(what));
    }
  if (trust.bad_keys.empty()) trust.policy = std::move(policy);
  return trust;
}

}  // namespace

CheckedPipeline check_pipeline(const PipelineRequest& request, StrategyRegistry& registry) {
  CheckedPipeline checked;
  auto file = config::read_pipeline(request.file, {.set = request.set, .working_directory = {}});
  const bool readable = file.readable();
  auto& loaded = checked.loaded;
  Trust trust;
  if (readable) {
    trust = settle_trust(file, request.trust);
    if (!trust.policy) {
      loaded = config::unresolved(std::move(file), std::move(trust.problems));
      for (const auto& [where, what] : trust.bad_keys)
        loaded.report(Severity::Error, where, what, "no plugin was loaded, so nothing else in this file was looked at");
      return checked;
    }
    registry.set_trust(std::move(*trust.policy));
    registry.scan(search_paths(request.plugin_path, file.plugin_path()));
  }
  loaded = config::resolve(std::move(file), registry);
  if (!readable) return checked;
  loaded.spec.plugins = trust.said;
  if (trust.said.says_anything() && !trust.said.require_signed)
    loaded.report(Severity::Warning, "plugins",
                  "[plugins] lists who is trusted, but others' plugins are loaded as well",
                  "require_signed = true, or --require-signed, refuses them");
  check_devices(loaded, request);
  if (loaded.ok())
    reporting(loaded, "model.path", [&] { checked.shape = pipeline::shape_of(loaded.spec, registry, {}); });
  std::optional<Exchange> exchange;
  if (checked.shape) {
    reporting(loaded, "aggregator.use", [&] {
      const pipeline::Stages stages(loaded.spec, registry, {});
      RoundPlan plan;
      plan.round = 1;
      exchange = pipeline::exchange_for(stages, checked.shape->trainable, plan, {});
      if (pipeline::takes_ranks(loaded.spec)) pipeline::views_of(stages, checked.shape->layouts);
    });
  }
  pipeline::check_rules(loaded, registry, checked.shape ? &checked.shape->trainable : nullptr,
                        exchange ? &*exchange : nullptr);
  return checked;
}

int check_command(const CheckOptions& options, std::ostream& out) {
  StrategyRegistry registry;
  auto checked = check_pipeline(options.pipeline, registry);
  auto& loaded = checked.loaded;
  std::optional<CostEstimate> cost;
  if (loaded.ok() && checked.shape)
    reporting(loaded, "", [&] {
      const pipeline::Stages stages(loaded.spec, registry, {});
      if (options.explain) cost = pipeline::estimate(loaded.spec, *checked.shape, stages);
    });
  if (options.json) {
    out << as_json(loaded, cost, options);
    return loaded.exit_code();
  }
  out << config::render(loaded.diagnostics);
  if (loaded.diagnostics.empty()) out << fmt::format("{}: no problems\n", options.pipeline.file.string());
  if (!options.explain || !loaded.parsed || loaded.unreadable) return loaded.exit_code();
  print_settings(loaded, out);
  if (loaded.ok()) out << fmt::format("\npipeline {}\n", config::pipeline_digest(loaded.spec));
  if (cost) print_cost(*cost, out);
  return loaded.exit_code();
}

}  // namespace hansa
