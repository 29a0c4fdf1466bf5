#include "plugin_host/table_check.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <span>

#include <fmt/ranges.h>
#include <hansa/schema.hpp>

#include "base/error.hpp"
#include "plugin_host/build_note.hpp"

namespace hansa {
namespace {

constexpr int kDeepest = 16;
constexpr std::uint32_t kMost = 4096;

bool is_name(std::string_view name, std::string_view also) {
  const auto ok = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || also.find(c) != std::string_view::npos;
  };
  return !name.empty() && name.size() <= 64 && name[0] >= 'a' && name[0] <= 'z' &&
         std::all_of(name.begin(), name.end(), ok);
}

struct Outdated : Error {  // needs another build, no other source
  using Error::Error;
};

template <class... P>
[[noreturn]] void refuse(fmt::format_string<P...> text, P&&... parts) {
  throw Error(fmt::format(text, std::forward<P>(parts)...));
}
// A table of an older contract than this host's.
void need_size(std::uint32_t size, std::size_t needed, std::string_view what) {
  if (size < needed) throw Outdated(fmt::format("{} was built with {} bytes, this host needs {}", what, size, needed));
}
void need_text(const char* text, std::string_view what) {
  if (!text) refuse("{} is null", what);
}

void check_params(std::span<const HansaParam* const> params, const std::string& where, int depth);

void check_range(const HansaParam& param, const std::string& where) {
  const bool low = param.flags & HANSA_PARAM_MIN, high = param.flags & HANSA_PARAM_MAX;
  if ((low && std::isnan(param.minimum)) || (high && std::isnan(param.maximum)))
    refuse("{}: a bound is not a number", where);
  if (low && high && param.minimum > param.maximum)
    refuse("{}: the minimum {} is above the maximum {}", where, param.minimum, param.maximum);
}

void check_type(const HansaParam& param, const std::string& where, int depth) {
  switch (param.type) {
    case HANSA_CHOICE:
      if (param.choice_count == 0 || param.choice_count > kMost || !param.choices) refuse("{}: has no choices", where);
      for (std::uint32_t i = 0; i < param.choice_count; ++i) need_text(param.choices[i], where + ": a choice");
      break;
    case HANSA_LIST:
      if (!param.element) refuse("{}: a list needs the type of its elements", where);
      need_size(param.element->struct_size, sizeof(HansaParam), where + ": the element's table");
      check_range(*param.element, where);
      check_type(*param.element, where + " element", depth + 1);
      break;
    case HANSA_TABLE:
      if (param.field_count > kMost || (param.field_count > 0 && !param.fields))
        refuse("{}: its fields are missing", where);
      check_params({param.fields, param.field_count}, where + ".", depth + 1);
      break;
    case HANSA_COMPONENT:
      need_text(param.component_kind, where + ": component_kind");
      if (!is_name(param.component_kind, "")) refuse("{}: '{}' is no kind", where, param.component_kind);
      break;
    case HANSA_BOOL:
    case HANSA_INT:
    case HANSA_REAL:
    case HANSA_TEXT:
    case HANSA_BYTES:
    case HANSA_DURATION:
    case HANSA_PATH: break;
    default: refuse("{}: type {} is unknown to this host", where, param.type);
  }
  if (depth > kDeepest) refuse("{}: nests deeper than {} levels", where, kDeepest);
}

void check_value(const HansaValue& value, const std::string& where, int depth) {
  need_size(value.struct_size, sizeof(HansaValue), where + ": its default's table");
  if (value.text.size > 0 && !value.text.data) refuse("{}: its default's text is null", where);
  if (value.count > kMost || depth > kDeepest) refuse("{}: its default is too large", where);
  if (value.count > 0 && !value.items) refuse("{}: its default's items are null", where);
  const bool keyed = value.type == HANSA_TABLE || value.type == HANSA_COMPONENT;
  for (std::uint32_t i = 0; i < value.count; ++i) {
    if (!value.items[i]) refuse("{}: an item of its default is null", where);
    if (keyed && (!value.keys || !value.keys[i])) refuse("{}: a key of its default is null", where);
    check_value(*value.items[i], where, depth + 1);
  }
}

void check_params(std::span<const HansaParam* const> params, const std::string& prefix, int depth) {
  std::set<std::string_view> names;
  for (const auto* param : params) {
    if (!param) refuse("{}an entry of the parameter table is null", prefix);
    need_size(param->struct_size, sizeof(HansaParam), prefix + "an entry of the parameter table");
    if (!param->name || !is_name(param->name, ""))
      refuse("{}'{}' is no parameter name ([a-z][a-z0-9_]*)", prefix, param->name ? param->name : "");
    const auto where = prefix + param->name;
    if (std::string_view(param->name) == "use")
      refuse("{}: 'use' names the component and cannot be a parameter", where);
    if (!names.insert(param->name).second) refuse("{}: is declared twice", where);
    need_text(param->doc, where + ": doc");
    need_text(param->unit, where + ": unit");
    need_text(param->since, where + ": since");
    need_text(param->deprecated, where + ": deprecated");
    check_range(*param, where);
    check_type(*param, where, depth);
    if (!param->default_value) continue;
    if (param->flags & HANSA_PARAM_REQUIRED) refuse("{}: is required and has a default", where);
    check_value(*param->default_value, where, 0);
    if (const auto problem = why_not(*param, *param->default_value)) refuse("{}: its default {}", where, *problem);
  }
}

void check_component(const HansaComponent* component, const std::vector<std::string>& kinds) {
  if (!component) refuse("a component is null");
  need_size(component->struct_size, sizeof(HansaComponent), "a component's table");
  if (!component->id || !is_component_id(component->id))
    refuse("'{}' is no component id ([a-z][a-z0-9_-]*)", component->id ? component->id : "");
  const auto where = fmt::format("component '{}'", component->id);
  need_text(component->kind, where + ": kind");
  if (std::find(kinds.begin(), kinds.end(), component->kind) == kinds.end())
    refuse(
        "{}: it was built for {}, but this host needs a kind of the file's build note ({}), the only ones that were "
        "compared. Name it under KINDS of hansa_add_plugin, if this host's SDK has it",
        where, component->kind, fmt::join(kinds, ", "));
  need_text(component->summary, where + ": summary");
  need_text(component->doc, where + ": doc");
  if (component->maturity > HANSA_STABLE) refuse("{}: maturity {} is unknown", where, component->maturity);
  if (!component->validate || !component->traits || !component->create || !component->destroy)
    refuse("{}: one of validate, traits, create, destroy is null", where);
  if (component->param_count > kMost || (component->param_count > 0 && !component->params))
    refuse("{}: its parameters are missing", where);
  check_params({component->params, component->param_count}, where + ", parameter ", 0);
}

void check(const HansaPlugin* plugin, const std::vector<std::string>& kinds) {
  if (!plugin) refuse("the entry returned null");
  if (plugin->abi_major != HANSA_ABI_MAJOR || plugin->abi_minor > HANSA_ABI_MINOR)
    throw Outdated(fmt::format("contract: built for {}.{}, this host needs {}.0 to {}.{}", plugin->abi_major,
                               plugin->abi_minor, HANSA_ABI_MAJOR, HANSA_ABI_MAJOR, HANSA_ABI_MINOR));
  need_size(plugin->struct_size, sizeof(HansaPlugin), "the plugin's table");
  if (!plugin->id || !is_name(plugin->id, ".-")) refuse("'{}' is no plugin id", plugin->id ? plugin->id : "");
  for (const auto* text : {plugin->version, plugin->vendor, plugin->license, plugin->url})
    need_text(text, "version, vendor, license or url");
  if (!std::isdigit(static_cast<unsigned char>(plugin->version[0])))
    refuse("'{}' is no version (1.2.3)", plugin->version);
  if (plugin->component_count == 0 || plugin->component_count > kMost || !plugin->components)
    refuse("it describes no component");
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (std::uint32_t i = 0; i < plugin->component_count; ++i) {
    check_component(plugin->components[i], kinds);
    if (!seen.emplace(kind_of(*plugin->components[i]), plugin->components[i]->id).second)
      refuse("component '{}' is described twice", plugin->components[i]->id);
  }
}

}  // namespace

std::optional<std::string> table_problem(const HansaPlugin* plugin, const std::vector<std::string>& kinds) {
  try {
    check(plugin, kinds);
    return std::nullopt;
  } catch (const Outdated& e) {
    return fmt::format("{}. Rebuild it with this host's SDK: {}", e.what(), kRebuildCommand);
  } catch (const Error& e) {
    return fmt::format("{}. Correct what its source says under HANSA_PLUGIN, and rebuild it", e.what());
  }
}

bool is_component_id(std::string_view id) { return is_name(id, "-"); }

std::string_view kind_of(const HansaComponent& component) {
  const std::string_view kind = component.kind;
  return kind.substr(0, kind.find('/'));
}

}  // namespace hansa
