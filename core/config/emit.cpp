#include "config/emit.hpp"

#include <fmt/format.h>

#include "config/document.hpp"
#include "config/load.hpp"
#include "config/quantity.hpp"
#include "config/sections.hpp"

namespace hansa::config {
namespace {

const HansaParam* param_of(const HansaParam* const* params, std::uint32_t count, std::string_view name) {
  for (std::uint32_t i = 0; i < count; ++i)
    if (name == params[i]->name) return params[i];
  return nullptr;
}

// `use`, the host's keys, the plugin's parameters, as they stand together in one section. Secrets stay out.
Value section_of(const ComponentSpec& spec, Value host = {}) {
  Value section;
  section.set("use", Value::text(spec.use));
  for (std::size_t i = 0; i < host.size(); ++i) section.set(host.key(i), host.at(i));
  for (std::size_t i = 0; i < spec.params.size(); ++i) {
    const auto& key = spec.params.key(i);
    const auto* param = spec.component ? param_of(spec.component->params, spec.component->param_count, key) : nullptr;
    if (param && (param->flags & HANSA_PARAM_SECRET)) continue;
    section.set(key, spec.params.at(i));
  }
  return section;
}

std::string inline_table(const HansaValue& value) {
  std::string text = "{ ";
  if (value.type == HANSA_COMPONENT) text += "use = " + toml_text(text_of(value)) + (value.count ? ", " : " ");
  for (std::uint32_t i = 0; i < value.count; ++i)
    text += fmt::format("{} = {}{}", toml_key(value.keys[i]), toml_value(*value.items[i]),
                        i + 1 < value.count ? ", " : " ");
  return value.count == 0 && value.type == HANSA_TABLE ? "{}" : text + "}";
}

void append_section(std::string& text, const std::string& header, const HansaValue& section) {
  text += "\n" + header + "\n";
  for (std::uint32_t i = 0; i < section.count; ++i)
    text += fmt::format("{} = {}\n", toml_key(section.keys[i]), toml_value(*section.items[i]));
}

}  // namespace

std::string toml_value(const HansaValue& value) {
  switch (value.type) {
    case HANSA_BOOL: return value.integer ? "true" : "false";
    case HANSA_INT: return fmt::format("{}", value.integer);
    case HANSA_BYTES:
      return value.integer > 0 && value.integer % 1024 == 0 ? toml_text(exact_bytes_text(value.integer))
                                                            : fmt::format("{}", value.integer);
    case HANSA_REAL:
    case HANSA_DURATION: return number_text(value.real);
    case HANSA_TEXT:
    case HANSA_CHOICE:
    case HANSA_PATH: return toml_text(text_of(value));
    case HANSA_LIST: {
      std::string text = "[";
      for (std::uint32_t i = 0; i < value.count; ++i) text += (i ? ", " : "") + toml_value(*value.items[i]);
      return text + "]";
    }
    case HANSA_TABLE:
    case HANSA_COMPONENT: return inline_table(value);
    default: return "?";
  }
}

Value as_sections(const RunSpec& spec) {
  const auto s = make_sections();
  Value whole;
  auto paths = Value::list();
  for (const auto& path : spec.plugin_path) paths.push_back(Value::path(path.string()));
  whole.set("plugin_path", std::move(paths));
  if (spec.plugins.says_anything()) whole.set("plugins", s.plugins.write(spec.plugins));
  whole.set("run", s.run.write(spec.run));
  whole.set("model", section_of(spec.model, s.model.write(spec.model_host)));
  whole.set("adapter", section_of(spec.adapter));
  whole.set("trainer", section_of(spec.trainer));
  whole.set("data", section_of(spec.data));
  const auto stages = [](const std::vector<ComponentSpec>& chain) {
    auto list = Value::list();
    for (const auto& codec : chain) list.push_back(section_of(codec));
    return list;
  };
  whole.set("codec", stages(spec.codecs));
  if (!spec.downlink.empty()) whole.set("downlink", stages(spec.downlink));
  if (spec.error_feedback) whole.set("error_feedback", s.error_feedback.write(*spec.error_feedback));
  if (!spec.privacy.kind.empty()) whole.set("privacy", section_of(spec.privacy, s.privacy.write(spec.privacy_host)));
  whole.set("aggregator", section_of(spec.aggregator, s.weights.write(spec.weights)));
  whole.set("server_optimizer", section_of(spec.server_optimizer));
  whole.set("selector", section_of(spec.selector));
  whole.set("round_policy", section_of(spec.round_policy));
  whole.set("evaluator", section_of(spec.evaluator));
  whole.set("train", s.train.write(spec.train));
  auto evaluation = s.evaluation.write(spec.evaluation);
  auto sets = Value::list();
  for (const auto& set : spec.evaluation.sets) sets.push_back(s.evaluation_set.write(set));
  if (sets.size() > 0) evaluation.set("set", std::move(sets));
  whole.set("evaluation", std::move(evaluation));
  whole.set("network", s.network.write(spec.network));
  const bool from_directory = spec.simulation && !spec.simulation->nodes_from.empty();
  if (spec.simulation) whole.set("simulation", from_directory ? s.simulation.write(*spec.simulation) : Value());
  whole.set("report", s.report.write(spec.report));
  auto nodes = Value::list();
  if (!from_directory)
    for (const auto& node : spec.nodes) nodes.push_back(s.node.write(node));
  whole.set("node", std::move(nodes));
  return whole;
}

std::string to_resolved_toml(const RunSpec& spec) {
  const auto whole = as_sections(spec);
  std::string text = "# Every value of this run, written out. Loads to the same pipeline.\n";
  text += "plugin_path = " + toml_value(*whole.find("plugin_path")) + "\n";
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const auto& key = whole.key(i);
    const auto& section = whole.at(i);
    if (key == "plugin_path") continue;
    if (section.type() == HANSA_LIST)
      for (std::size_t n = 0; n < section.size(); ++n) append_section(text, "[[" + key + "]]", section.at(n));
    else
      append_section(text, "[" + key + "]", section);
  }
  return text;
}

}  // namespace hansa::config
