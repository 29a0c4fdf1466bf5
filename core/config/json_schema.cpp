#include "config/json_schema.hpp"

#include <array>
#include <span>

#include <fmt/format.h>
#include <hansa/value.hpp>
#include <nlohmann/json.hpp>

#include "config/sections.hpp"

namespace hansa::config {
namespace {

using OrderedJson = nlohmann::ordered_json;
using Params = std::span<const HansaParam* const>;

struct ComponentSection {
  const char *name, *kind;
  bool required;
};
constexpr std::array kComponents{ComponentSection{"model", "model", true},
                                 ComponentSection{"adapter", "adapter", true},
                                 ComponentSection{"trainer", "trainer", true},
                                 ComponentSection{"data", "data_source", true},
                                 ComponentSection{"aggregator", "aggregator", true},
                                 ComponentSection{"privacy", "privacy", false},
                                 ComponentSection{"server_optimizer", "server_optimizer", false},
                                 ComponentSection{"selector", "selector", false},
                                 ComponentSection{"round_policy", "round_policy", false},
                                 ComponentSection{"evaluator", "evaluator", false}};

OrderedJson value_of(const HansaValue& value) {
  switch (value.type) {
    case HANSA_BOOL: return value.integer != 0;
    case HANSA_INT:
    case HANSA_BYTES: return value.integer;
    case HANSA_REAL:
    case HANSA_DURATION: return value.real;
    case HANSA_TEXT:
    case HANSA_CHOICE:
    case HANSA_PATH: return std::string(text_of(value));
    case HANSA_LIST: {
      OrderedJson list = OrderedJson::array();
      for (std::uint32_t i = 0; i < value.count; ++i) list.push_back(value_of(*value.items[i]));
      return list;
    }
    default: {
      OrderedJson table = OrderedJson::object();
      if (value.type == HANSA_COMPONENT) table["use"] = std::string(text_of(value));
      for (std::uint32_t i = 0; i < value.count; ++i) table[value.keys[i]] = value_of(*value.items[i]);
      return table;
    }
  }
}

void add_range(OrderedJson& schema, const HansaParam& param) {
  if (param.flags & HANSA_PARAM_MIN)
    schema[param.flags & HANSA_PARAM_MIN_EXCLUDED ? "exclusiveMinimum" : "minimum"] = param.minimum;
  if (param.flags & HANSA_PARAM_MAX)
    schema[param.flags & HANSA_PARAM_MAX_EXCLUDED ? "exclusiveMaximum" : "maximum"] = param.maximum;
}
void add_length(OrderedJson& schema, const HansaParam& param, const char* least, const char* most) {
  if (param.flags & HANSA_PARAM_MIN) schema[least] = static_cast<std::int64_t>(param.minimum);
  if (param.flags & HANSA_PARAM_MAX) schema[most] = static_cast<std::int64_t>(param.maximum);
}

OrderedJson table_of(Params params);

OrderedJson type_of(const HansaParam& param) {
  OrderedJson schema = OrderedJson::object();
  switch (param.type) {
    case HANSA_BOOL: schema["type"] = "boolean"; break;
    case HANSA_INT:
      schema["type"] = "integer";
      add_range(schema, param);
      break;
    case HANSA_REAL:
      schema["type"] = "number";
      add_range(schema, param);
      break;
    case HANSA_CHOICE:
      schema["enum"] = OrderedJson::array();
      for (std::uint32_t i = 0; i < param.choice_count; ++i) schema["enum"].push_back(param.choices[i]);
      break;
    case HANSA_BYTES: schema["type"] = {"integer", "string"}; break;
    case HANSA_DURATION: schema["type"] = {"number", "string"}; break;
    case HANSA_LIST:
      schema["type"] = "array";
      if (param.element) schema["items"] = type_of(*param.element);
      add_length(schema, param, "minItems", "maxItems");
      break;
    case HANSA_TABLE: schema = table_of({param.fields, param.field_count}); break;
    case HANSA_COMPONENT: schema["$ref"] = fmt::format("#/definitions/{}", param.component_kind); break;
    default: schema["type"] = "string"; add_length(schema, param, "minLength", "maxLength");
  }
  return schema;
}

OrderedJson described(const HansaParam& param) {
  auto schema = type_of(param);
  if (schema.contains("$ref")) return schema;  // its siblings would be ignored
  const std::string unit = param.unit && *param.unit ? fmt::format(" ({})", param.unit) : "";
  schema["description"] = fmt::format("{}{}", param.doc ? param.doc : "", unit);
  if (param.default_value) schema["default"] = value_of(*param.default_value);
  return schema;
}

void add_params(OrderedJson& properties, OrderedJson& required, Params params) {
  for (const auto* param : params) {
    properties[param->name] = described(*param);
    if (param->flags & HANSA_PARAM_REQUIRED) required.push_back(param->name);
  }
}

OrderedJson closed_table(OrderedJson properties, OrderedJson required) {
  OrderedJson schema{{"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

OrderedJson table_of(Params params) {
  OrderedJson properties = OrderedJson::object(), required = OrderedJson::array();
  add_params(properties, required, params);
  return closed_table(std::move(properties), std::move(required));
}

// One table per component of the kind. A section that lacks `use` changes what an included file says.
OrderedJson component_of(const ComponentCatalog& catalog, std::string_view kind, Params host) {
  OrderedJson variants = OrderedJson::array();
  for (const auto& name : catalog.names(kind)) {
    const auto* component = catalog.find(kind, name);
    if (!component) continue;
    OrderedJson use{
        {"type", "string"}, {"pattern", fmt::format("^{}(@[0-9]+)?$", name)}, {"description", component->summary}};
    OrderedJson properties{{"use", std::move(use)}}, required = OrderedJson::array();
    add_params(properties, required, {component->params, component->param_count});
    required.push_back("use");
    OrderedJson unused = OrderedJson::array();
    add_params(properties, unused, host);
    variants.push_back(closed_table(std::move(properties), std::move(required)));
  }
  return {{"anyOf", std::move(variants)}};
}
OrderedJson or_a_change(OrderedJson section) {
  section["anyOf"].push_back({{"type", "object"}, {"not", {{"required", {"use"}}}}});
  return section;
}

}  // namespace

std::string json_schema(const ComponentCatalog& catalog) {
  const auto sections = make_sections();
  OrderedJson definitions = OrderedJson::object(), properties = OrderedJson::object(), required = OrderedJson::array();
  properties["include"] = {
      {"type", {"string", "array"}},
      {"items", {{"type", "string"}}},
      {"description", "Other pipeline files, relative to this one, whose settings this one overrides."}};
  properties["plugin_path"] = {
      {"type", "array"}, {"items", {{"type", "string"}}}, {"description", "Folders or files with plugins."}};
  properties["plugins"] = table_of(sections.plugins.params());
  for (const auto& [name, kind, needed] : kComponents) {
    Params host;
    if (std::string_view(name) == "model") host = sections.model.params();
    if (std::string_view(name) == "aggregator") host = sections.weights.params();
    if (std::string_view(name) == "privacy") host = sections.privacy.params();
    definitions[kind] = component_of(catalog, kind, {});
    properties[name] = or_a_change(component_of(catalog, kind, host));
    if (needed) required.push_back(name);
  }
  definitions["compressor"] = component_of(catalog, "compressor", {});
  const OrderedJson stages{{"type", "array"}, {"items", {{"$ref", "#/definitions/compressor"}}}};
  properties["codec"] = properties["downlink"] = stages;
  properties["run"] = table_of(sections.run.params());
  properties["train"] = table_of(sections.train.params());
  properties["error_feedback"] = table_of(sections.error_feedback.params());
  auto evaluation = table_of(sections.evaluation.params());
  evaluation["properties"]["set"] = {{"type", "array"}, {"items", table_of(sections.evaluation_set.params())}};
  properties["evaluation"] = std::move(evaluation);
  properties["network"] = table_of(sections.network.params());
  properties["simulation"] = table_of(sections.simulation.params());
  properties["report"] = table_of(sections.report.params());
  properties["node"] = {{"type", "array"}, {"items", table_of(sections.node.params())}};

  OrderedJson schema{{"$schema", "http://json-schema.org/draft-07/schema#"},
                     {"title", "Hansa pipeline"},
                     {"type", "object"},
                     {"properties", std::move(properties)},
                     {"additionalProperties", false},
                     {"anyOf", {{{"required", {"include"}}}, {{"required", std::move(required)}}}},
                     {"definitions", std::move(definitions)}};
  return schema.dump(2) + "\n";
}

}  // namespace hansa::config
