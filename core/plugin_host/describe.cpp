#include "plugin_host/describe.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/ranges.h>
#include <hansa/schema.hpp>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "base/value_json.hpp"
#include "plugin_host/instance.hpp"
#include "plugin_host/table_check.hpp"

namespace hansa {
namespace {

using json = nlohmann::ordered_json;

constexpr std::array kMaturities = {"experimental", "beta", "stable"};
constexpr std::array kTraits = {"Linear",
                                "Unbiased",
                                "Lossless",
                                "FixedSupport",
                                "NormSafe",
                                "AdditiveCodes",
                                "OrderFree",
                                "Additive",
                                "ElementwiseMean",
                                "RankAware",
                                "Exact",
                                "NeedsIndividuals",
                                "ReleasesIndividuals",
                                "AssumesPoisson",
                                "Flat",
                                "GrowsWithRank",
                                "KeepsHistory",
                                "Stateless",
                                "Reentrant",
                                "PlainAveraging",
                                "Poisson",
                                "Everyone",
                                "CentralNoise",
                                "LocalNoise",
                                "ClosesEarly",
                                "StatesSensitivity"};

using Row = std::vector<std::string>;
// Columns as wide as their widest cell; the last is free.
std::string columns(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i)
      text += i + 1 == row.size() ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    text += '\n';
  }
  return text;
}

std::string indented(std::string_view text, std::string_view by) {
  std::string out;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    if (end > 0) out += fmt::format("{}{}", by, text.substr(0, end));
    out += '\n';
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string default_text(const HansaParam& param) {
  if (param.flags & HANSA_PARAM_REQUIRED) return "required";
  return param.default_value ? fmt::format("default {}", toml_text(*param.default_value)) : "absent by default";
}

std::string facts_text(const HansaParam& param) {
  auto text = fmt::format("{}, {}", type_text(param), default_text(param));
  const auto range = range_text(param);
  if (!range.empty())
    text += fmt::format(", {}{}", param.type == HANSA_TEXT || param.type == HANSA_LIST ? "length " : "", range);
  if (param.element)
    if (const auto inner = range_text(*param.element); !inner.empty()) text += fmt::format(", each {}", inner);
  if (*param.unit) text += fmt::format(", in {}", param.unit);
  if (param.flags & HANSA_PARAM_MUST_EXIST) text += ", must exist";
  if (param.flags & HANSA_PARAM_SECRET) text += ", secret";
  if (*param.since) text += fmt::format(", since {}", param.since);
  if (*param.deprecated) text += fmt::format(", deprecated: {}", param.deprecated);
  return text;
}

std::string params_text(const HansaParam* const* params, std::uint32_t count, const std::string& indent) {
  std::string text;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto& param = *params[i];
    text += fmt::format("{}{}: {}\n", indent, param.name, facts_text(param));
    text += indented(param.doc, indent + "    ");
    const auto& table = param.type == HANSA_LIST ? *param.element : param;
    if (table.type == HANSA_TABLE) text += params_text(table.fields, table.field_count, indent + "    ");
  }
  return text;
}

std::vector<std::string> default_traits(const HansaComponent& component) {
  try {
    const auto params = with_defaults(component, Value());
    HansaTraits traits{};
    traits.struct_size = sizeof traits;
    if (component.traits(&component, &params.raw(), &traits) == 0) return trait_names(traits.flags);
  } catch (const Error&) {  // a required parameter: no defaults to speak of
  }
  return {};
}

json params_json(const HansaParam* const* params, std::uint32_t count);

json param_json(const HansaParam& param) {
  json entry = {{"name", param.name}, {"type", name_of(static_cast<HansaType>(param.type))}, {"doc", param.doc}};
  entry["required"] = (param.flags & HANSA_PARAM_REQUIRED) != 0;
  if (param.default_value) entry["default"] = json::parse(to_json(*param.default_value));
  if (param.flags & HANSA_PARAM_MIN)
    entry[param.flags & HANSA_PARAM_MIN_EXCLUDED ? "more_than" : "minimum"] = param.minimum;
  if (param.flags & HANSA_PARAM_MAX)
    entry[param.flags & HANSA_PARAM_MAX_EXCLUDED ? "less_than" : "maximum"] = param.maximum;
  if (*param.unit) entry["unit"] = param.unit;
  for (std::uint32_t i = 0; i < param.choice_count; ++i) entry["choices"].push_back(param.choices[i]);
  if (param.type == HANSA_LIST) entry["element"] = param_json(*param.element);
  if (param.type == HANSA_TABLE) entry["fields"] = params_json(param.fields, param.field_count);
  if (param.type == HANSA_COMPONENT) entry["kind"] = param.component_kind;
  if (param.flags & HANSA_PARAM_SECRET) entry["secret"] = true;
  if (param.flags & HANSA_PARAM_MUST_EXIST) entry["must_exist"] = true;
  if (*param.since) entry["since"] = param.since;
  if (*param.deprecated) entry["deprecated"] = param.deprecated;
  return entry;
}
json params_json(const HansaParam* const* params, std::uint32_t count) {
  auto all = json::array();
  for (std::uint32_t i = 0; i < count; ++i) all.push_back(param_json(*params[i]));
  return all;
}

json component_json(const StrategyRegistry& registry, const HansaComponent& component) {
  const auto& file = registry.file_of(component);
  return {{"kind", kind_of(component)},
          {"interface", component.kind},
          {"id", component.id},
          {"version", file.plugin->version},
          {"maturity", kMaturities.at(component.maturity)},
          {"summary", component.summary},
          {"plugin", file.plugin->id},
          {"file", file.path.string()}};
}

json file_json(const PluginFile& file) {
  json entry = {{"file", file.path.string()},
                {"outcome", name_of(file.outcome)},
                {"why", file.why},
                {"search_path", file.found_by.path.string()},
                {"search_path_from", file.found_by.from},
                {"sha256", sha256_of(file)}};
  if (file.voucher) {
    entry["vouched_by"] = file.voucher->text();
    if (const auto& key = file.voucher->key) entry["signed_by"] = {{"key_id", key->id()}, {"key", key->name}};
  }
  if (file.plugin) {
    entry["plugin"] = file.plugin->id;
    entry["version"] = file.plugin->version;
    entry["vendor"] = file.plugin->vendor;
    entry["license"] = file.plugin->license;
    entry["url"] = file.plugin->url;
    entry["components"] = json::array();
    for (std::uint32_t i = 0; i < file.plugin->component_count; ++i)
      entry["components"].push_back(
          fmt::format("{}/{}", kind_of(*file.plugin->components[i]), file.plugin->components[i]->id));
    for (const auto& [key, value] : file.note) entry["built_for"][key] = value;
  }
  return entry;
}

// Texts come from plugins: what is not UTF-8 must not end the listing.
std::string dumped(const json& value) { return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n"; }

}  // namespace

std::string type_text(const HansaParam& param) {
  if (param.type == HANSA_LIST) return fmt::format("list of {}", type_text(*param.element));
  if (param.type == HANSA_COMPONENT) return fmt::format("{} component", param.component_kind);
  if (param.type != HANSA_CHOICE) return name_of(static_cast<HansaType>(param.type));
  return fmt::format("{}", fmt::join(param.choices, param.choices + param.choice_count, " | "));
}

std::string toml_text(const HansaValue& value) {
  switch (value.type) {
    case HANSA_BOOL: return value.integer ? "true" : "false";
    case HANSA_INT: return fmt::format("{}", value.integer);
    case HANSA_BYTES:
      for (const auto& [shift, unit] : {std::pair(30, "GiB"), std::pair(20, "MiB"), std::pair(10, "KiB")})
        if (value.integer != 0 && value.integer % (std::int64_t{1} << shift) == 0)
          return fmt::format("\"{}{}\"", value.integer >> shift, unit);
      return fmt::format("{}", value.integer);
    case HANSA_REAL: {
      const auto text = fmt::format("{}", value.real);
      return text.find_first_of(".einf") == std::string::npos ? text + ".0" : text;
    }
    case HANSA_DURATION: return fmt::format("\"{}s\"", value.real);
    case HANSA_LIST: {
      std::vector<std::string> items;
      for (std::uint32_t i = 0; i < value.count; ++i) items.push_back(toml_text(*value.items[i]));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
    case HANSA_TABLE:
    case HANSA_COMPONENT: {
      std::vector<std::string> entries;
      if (value.type == HANSA_COMPONENT) entries.push_back(fmt::format("use = {}", json(text_of(value)).dump()));
      for (std::uint32_t i = 0; i < value.count; ++i)
        entries.push_back(fmt::format("{} = {}", value.keys[i], toml_text(*value.items[i])));
      return entries.empty() ? "{}" : fmt::format("{{ {} }}", fmt::join(entries, ", "));
    }
    default: return json(text_of(value)).dump(-1, ' ', false, json::error_handler_t::replace);
  }
}

std::vector<std::string> trait_names(std::uint64_t flags) {
  std::vector<std::string> names;
  for (std::size_t bit = 0; bit < kTraits.size(); ++bit)
    if (flags >> bit & 1) names.emplace_back(kTraits[bit]);
  return names;
}

std::string sha256_of(const PluginFile& file) {
  if (!file.sha256.empty()) return file.sha256;
  try {
    if (!std::filesystem::is_regular_file(file.path)) return {};
    return sha256_hex(read_file(file.path));  // read, not mapped: somebody may be cutting it
  } catch (const std::exception&) {
    return {};
  }
}

std::string list_text(const StrategyRegistry& registry, Rows which) {
  std::vector<Row> rows = {{"KIND", "NAME", "VERSION", "MATURITY", "SUMMARY"}};
  for (const auto* component : registry.components())
    rows.push_back({std::string(kind_of(*component)), component->id, registry.file_of(*component).plugin->version,
                    kMaturities.at(component->maturity), component->summary});
  auto text = rows.size() > 1 ? columns(rows) : "no plugin was loaded\n";
  if (which == Rows::Components) return text;
  const auto& files = registry.files();
  const bool vouched =
      std::any_of(files.begin(), files.end(), [](const auto& file) { return file.voucher.has_value(); });
  rows = {{"OUTCOME", "FOUND BY", "SHA-256", "FILE"}};
  for (const auto& file : files) {
    rows.push_back(
        {std::string(name_of(file.outcome)), file.found_by.from, sha256_of(file).substr(0, 12), file.path.string()});
    if (!file.why.empty()) rows.back().back() += ": " + file.why;
  }
  if (vouched) {
    rows[0].insert(rows[0].end() - 1, "VOUCHED FOR BY");
    for (std::size_t i = 0; i < files.size(); ++i)
      rows[i + 1].insert(rows[i + 1].end() - 1, files[i].voucher ? files[i].voucher->text() : "");
  }
  return text + "\n" + (rows.size() > 1 ? columns(rows) : "no file was looked at\n");
}

std::string list_json(const StrategyRegistry& registry) {
  json all = {{"components", json::array()}, {"files", json::array()}};
  for (const auto* component : registry.components()) all["components"].push_back(component_json(registry, *component));
  for (const auto& file : registry.files()) all["files"].push_back(file_json(file));
  return dumped(all);
}

std::string describe_text(const StrategyRegistry& registry, const HansaComponent& component) {
  const auto& file = registry.file_of(component);
  auto text = fmt::format("{}: {}, version {}, {}\n    {}\n", component.id, component.kind, file.plugin->version,
                          kMaturities.at(component.maturity), component.summary);
  if (*component.doc) text += fmt::format("\n{}", indented(component.doc, "    "));
  text += fmt::format("\nParameters{}\n", component.param_count == 0 ? ": none" : "");
  text += params_text(component.params, component.param_count, "  ");
  const auto traits = default_traits(component);
  if (!traits.empty()) text += fmt::format("\nTraits, with default parameters: {}\n", fmt::join(traits, ", "));
  text += fmt::format("\nPlugin {}{}{}, {}\n", file.plugin->id, *file.plugin->vendor ? " by " : "", file.plugin->vendor,
                      file.path.string());
  return text;
}

std::string describe_json(const StrategyRegistry& registry, const HansaComponent& component) {
  auto entry = component_json(registry, component);
  entry["doc"] = component.doc;
  entry["parameters"] = params_json(component.params, component.param_count);
  entry["default_traits"] = default_traits(component);
  entry["sha256"] = sha256_of(registry.file_of(component));
  return dumped(entry);
}

std::vector<const HansaComponent*> find_any(const StrategyRegistry& registry, std::string_view name) {
  std::vector<const HansaComponent*> found;
  const auto slash = name.find('/');
  for (const auto& kind : registry.kinds()) {
    if (slash != std::string_view::npos && name.substr(0, slash) != kind) continue;
    const auto wanted = slash == std::string_view::npos ? name : name.substr(slash + 1);
    if (const auto* component = registry.find(kind, wanted)) found.push_back(component);
  }
  if (found.empty())
    for (const auto* component : registry.components())
      if (registry.file_of(*component).plugin->id == name) found.push_back(component);
  return found;
}

}  // namespace hansa
