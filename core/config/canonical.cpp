// The canonical JSON of a pipeline: what coordinator and nodes must agree on.
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/error.hpp"
#include "config/emit.hpp"
#include "config/load.hpp"
#include "config/resolver.hpp"

namespace hansa::config {
namespace {

using Json = nlohmann::json;  // objects are sorted by key

// Nothing for a path: it means something on one machine only.
std::optional<Json> to_json(const HansaValue& value) {
  switch (value.type) {
    case HANSA_BOOL: return Json(value.integer != 0);
    case HANSA_INT:
    case HANSA_BYTES: return Json(value.integer);
    case HANSA_REAL:
    case HANSA_DURATION: return Json(value.real);
    case HANSA_TEXT:
    case HANSA_CHOICE: return Json(std::string(text_of(value)));
    case HANSA_LIST: {
      Json list = Json::array();
      for (std::uint32_t i = 0; i < value.count; ++i)
        if (auto item = to_json(*value.items[i])) list.push_back(std::move(*item));
      return list;
    }
    case HANSA_TABLE:
    case HANSA_COMPONENT: {
      Json table = Json::object();
      if (value.type == HANSA_COMPONENT) table["use"] = std::string(text_of(value));
      for (std::uint32_t i = 0; i < value.count; ++i)
        if (auto item = to_json(*value.items[i])) table[value.keys[i]] = std::move(*item);
      return table;
    }
    default: return std::nullopt;
  }
}

Node from_json(const Json& json, int depth = 0) {
  constexpr int kDeepest = 32;  // what comes over the wire must not exhaust the stack
  if (depth > kDeepest) throw Error("the pipeline from the coordinator is nested too deeply");
  Node node;
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) node.entries.push_back({key, {}, from_json(value, depth + 1)});
  } else if (json.is_array()) {
    node.kind = Node::Kind::List;
    for (const auto& item : json) node.items.push_back(from_json(item, depth + 1));
  } else if (json.is_string()) {
    node.kind = Node::Kind::Text;
    node.text = json.get<std::string>();
  } else if (json.is_boolean()) {
    node.kind = Node::Kind::Boolean;
    node.boolean = json.get<bool>();
  } else if (json.is_number_integer()) {
    node.kind = Node::Kind::Integer;
    node.integer = json.get<std::int64_t>();
  } else if (json.is_number_float()) {
    node.kind = Node::Kind::Real;
    node.real = json.get<double>();
  } else {
    throw Error("the pipeline from the coordinator holds a null");
  }
  return node;
}

}  // namespace

std::string canonical_json(const RunSpec& spec) {
  auto sections = as_sections(spec);
  for (const auto* local : {"plugin_path", "plugins", "evaluation", "network", "simulation", "report", "node"})
    sections.erase(local);
  for (const auto* local : {"name", "durability", "keep_versions", "compact_log_after", "call_limit_seconds",
                            "call_grace_seconds", "node_call_limit_seconds", "node_call_grace_seconds"})
    sections.find("run")->erase(local);
  sections.find("model")->erase("device");
  return to_json(sections.raw())->dump();
}

std::string pipeline_digest(const RunSpec& spec) { return sha256_hex(canonical_json(spec)); }

RunSpec spec_from_canonical(std::string_view json, const ComponentCatalog& catalog) {
  const auto parsed = Json::parse(json, nullptr, false);
  if (!parsed.is_object())
    throw Error("the pipeline from the coordinator is no JSON object: do both sides run the same version?");
  const auto root = from_json(parsed);
  const Sources none;
  std::vector<Diagnostic> problems;
  std::vector<Setting> unsaid;
  const Reading reading{catalog, none, problems, unsaid, Files::Ignore};
  auto spec = Resolver(reading, root, {}).run();
  if (!has_errors(problems)) return spec;
  std::string all = "the pipeline from the coordinator cannot run here:";
  for (const auto& p : problems)
    if (p.severity == Severity::Error) all += fmt::format("\n  {}{}{}", p.what, p.help.empty() ? "" : "; ", p.help);
  throw Error(all);
}

}  // namespace hansa::config
