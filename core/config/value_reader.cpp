#include "config/value_reader.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <system_error>

#include <fmt/format.h>
#include <hansa/schema.hpp>

#include "config/emit.hpp"
#include "config/pipeline_file.hpp"
#include "config/quantity.hpp"

namespace hansa::config {
namespace fs = std::filesystem;
namespace {

std::string did_you_mean(const std::vector<std::string>& near) {
  return near.empty() ? std::string() : fmt::format("did you mean {}?", quoted_list(near, "or"));
}

const char* what_is_asked_for(std::uint32_t type) {
  switch (type) {
    case HANSA_BOOL: return "true or false";
    case HANSA_INT: return "a whole number";
    case HANSA_REAL: return "a number";
    case HANSA_TEXT: return "a text";
    case HANSA_CHOICE: return "one of its choices";
    case HANSA_BYTES: return "a size such as \"64MiB\"";
    case HANSA_DURATION: return "a duration such as \"10m\" or a number of seconds";
    case HANSA_PATH: return "a path";
    case HANSA_LIST: return "a list";
    case HANSA_TABLE: return "a table";
    case HANSA_COMPONENT: return "a table such as { use = \"…\" }";
    default: return "of a type that this version knows";
  }
}

// How a value of the wrong type may have been meant.
std::string type_help(const HansaParam& param, const Node& node) {
  const bool text = node.kind == Node::Kind::Text;
  if (text && param.type == HANSA_BOOL && (node.text == "true" || node.text == "false")) return "remove the quotes";
  if (text && (param.type == HANSA_INT || param.type == HANSA_REAL)) return "numbers stand without quotes";
  if (node.kind == Node::Kind::Real && param.type == HANSA_INT && node.real == std::floor(node.real) &&
      std::abs(node.real) < 0x1p53)
    return fmt::format("write {}", static_cast<std::int64_t>(node.real));
  if (param.type == HANSA_LIST && node.kind != Node::Kind::Table) return "put it into brackets: [ … ]";
  return param.doc;
}

// One parameter's value, with everything that a message needs to know about it.
class ParamReader {
 public:
  ParamReader(const Reading& reading, const HansaParam& param, std::string key)
      : r_(reading), param_(param), key_(std::move(key)) {}

  std::optional<Value> read(const Node& node) const {
    auto value = typed(node);
    if (!value) return std::nullopt;
    if (auto problem = why_not(param_, value->raw(), Depth::This)) {
      r_.error(node.span, fmt::format("`{}` {}", key_, *problem), range_help());
      return std::nullopt;
    }
    return value;
  }

 private:
  std::nullopt_t wrong_type(const Node& node) const {
    r_.error(node.span,
             fmt::format("`{}` is {}, but must be {}", key_, name_of(node.kind), what_is_asked_for(param_.type)),
             type_help(param_, node));
    return std::nullopt;
  }
  std::string range_help() const {
    const std::string unit = param_.unit ? param_.unit : "";
    return fmt::format("{}{}{}", param_.doc ? param_.doc : "", unit.empty() ? "" : " Unit: ", unit);
  }

  std::optional<Value> typed(const Node& node) const {
    using K = Node::Kind;
    switch (param_.type) {
      case HANSA_BOOL: return node.kind == K::Boolean ? std::optional(Value::boolean(node.boolean)) : wrong_type(node);
      case HANSA_INT: return node.kind == K::Integer ? std::optional(Value::integer(node.integer)) : wrong_type(node);
      case HANSA_REAL: return real(node);
      case HANSA_TEXT: return node.kind == K::Text ? std::optional(Value::text(node.text)) : wrong_type(node);
      case HANSA_CHOICE: return choice(node);
      case HANSA_BYTES: return bytes(node);
      case HANSA_DURATION: return duration(node);
      case HANSA_PATH: return path(node);
      case HANSA_LIST: return list(node);
      case HANSA_TABLE: return table(node);
      case HANSA_COMPONENT: return component(node);
      default: return wrong_type(node);
    }
  }

  std::optional<Value> real(const Node& node) const {
    if (node.kind == Node::Kind::Integer) return Value::real(static_cast<double>(node.integer));
    if (node.kind != Node::Kind::Real) return wrong_type(node);
    if (std::isfinite(node.real)) return Value::real(node.real);
    r_.error(node.span, fmt::format("`{}` is {}, but must be finite", key_, number_text(node.real)), param_.doc);
    return std::nullopt;
  }

  std::optional<Value> choice(const Node& node) const {
    if (node.kind != Node::Kind::Text) return wrong_type(node);
    std::vector<std::string> names(param_.choices, param_.choices + param_.choice_count);
    if (std::find(names.begin(), names.end(), node.text) != names.end()) return Value::choice(node.text);
    const auto near = did_you_mean(near_names(node.text, names));
    r_.error(node.span, fmt::format("`{}` has no choice `{}`", key_, node.text),
             fmt::format("{}{}choose {}", near, near.empty() ? "" : " ", quoted_list(names, "or")));
    return std::nullopt;
  }

  std::optional<Value> bytes(const Node& node) const {
    if (node.kind == Node::Kind::Integer && node.integer >= 0)
      return Value::bytes(static_cast<std::uint64_t>(node.integer));
    if (node.kind == Node::Kind::Integer) {
      r_.error(node.span, fmt::format("`{}` is {}, but a size is not negative", key_, node.integer), param_.doc);
      return std::nullopt;
    }
    if (node.kind != Node::Kind::Text) return wrong_type(node);
    const auto parsed = parse_bytes(node.text);
    if (parsed) return Value::bytes(static_cast<std::uint64_t>(parsed.value()));
    r_.error(node.span, fmt::format("`{}`: \"{}\" {}", key_, node.text, parsed.error()), param_.doc);
    return std::nullopt;
  }

  std::optional<Value> duration(const Node& node) const {
    if (node.kind == Node::Kind::Integer) return Value::seconds(static_cast<double>(node.integer));
    if (node.kind == Node::Kind::Real && std::isfinite(node.real)) return Value::seconds(node.real);
    if (node.kind != Node::Kind::Text) return wrong_type(node);
    const auto parsed = parse_duration(node.text);
    if (parsed) return Value::seconds(parsed.value());
    r_.error(node.span, fmt::format("`{}`: \"{}\" {}", key_, node.text, parsed.error()), param_.doc);
    return std::nullopt;
  }

  std::optional<Value> path(const Node& node) const {
    if (node.kind != Node::Kind::Text) return wrong_type(node);
    if (node.text.empty()) {
      r_.error(node.span, fmt::format("`{}` is an empty path", key_), param_.doc);
      return std::nullopt;
    }
    const auto whole = path_of(r_.sources, node.span, node.text);
    std::error_code code;
    if ((param_.flags & HANSA_PARAM_MUST_EXIST) && r_.files == Files::Look && !fs::exists(whole, code)) {
      r_.error(node.span, fmt::format("`{}`: {} does not exist", key_, whole.string()), missing_help(node.text, whole));
      return std::nullopt;
    }
    return Value::path(whole.string());
  }

  // The first folder on the way that is not there, and what its parent holds instead.
  static std::string missing_help(const std::string& written, const fs::path& whole) {
    if (written.starts_with('~')) return "`~` is not expanded here: write the whole path";
    std::error_code code;
    fs::path there;
    for (const auto& part : whole) {
      if (!fs::exists(there / part, code)) {
        std::vector<std::string> names;
        for (fs::directory_iterator at(there, code), end; !code && at != end && names.size() < 1000; at.increment(code))
          names.push_back(at->path().filename().string());
        const auto near = did_you_mean(near_names(part.string(), names));
        return fmt::format("{} has no `{}`{}{}", there.string(), part.string(), near.empty() ? "" : "; ", near);
      }
      there /= part;
    }
    return {};
  }

  std::optional<Value> list(const Node& node) const {
    if (node.kind != Node::Kind::List) return wrong_type(node);
    auto list = Value::list();
    bool whole = true;
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      auto item = ParamReader(r_, *param_.element, fmt::format("{}.{}", key_, i)).read(node.items[i]);
      if (item)
        list.push_back(std::move(*item));
      else
        whole = false;
    }
    return whole ? std::optional(std::move(list)) : std::nullopt;
  }

  // Nested values are one setting, the whole one's: the inner ones go nowhere.
  std::optional<Value> table(const Node& node) const {
    if (node.kind != Node::Kind::Table) return wrong_type(node);
    std::vector<Setting> inner;
    const Reading nested{r_.catalog, r_.sources, r_.diagnostics, inner, r_.files};
    const Params fields(param_.fields, param_.field_count);
    const auto before = errors();
    refuse_unknown(nested, node, names_of(fields), {key_, node.span});
    auto value = read_params(nested, fields, &node, {key_, node.span});
    return errors() == before ? std::optional(std::move(value)) : std::nullopt;
  }

  std::optional<Value> component(const Node& node) const {
    if (node.kind != Node::Kind::Table) return wrong_type(node);
    std::vector<Setting> inner;
    const Reading nested{r_.catalog, r_.sources, r_.diagnostics, inner, r_.files};
    const auto before = errors();
    const auto chosen = choose(nested, param_.component_kind, node, {key_, node.span});
    if (!chosen) return std::nullopt;
    const auto params = params_of(*chosen->component);
    auto known = names_of(params);
    known.push_back("use");
    refuse_unknown(nested, node, known, {key_, node.span});
    const auto table = read_params(nested, params, &node, {key_, node.span});
    if (errors() != before) return std::nullopt;
    const auto traits = check_component(nested, *chosen, table, &node, {key_, node.span});
    if (!traits) return std::nullopt;
    auto value = Value::component(chosen->use, {}, traits->flags);
    for (std::size_t i = 0; i < table.size(); ++i) value.set(table.key(i), table.at(i));
    return value;
  }

  std::ptrdiff_t errors() const {
    return std::count_if(r_.diagnostics.begin(), r_.diagnostics.end(),
                         [](const Diagnostic& d) { return d.severity == Severity::Error; });
  }

  const Reading& r_;
  const HansaParam& param_;
  std::string key_;
};

struct ProblemSink {
  const Reading& r;
  const Node* table;
  const Place& place;
  bool any = false;
};

void add_problem(void* context, const char* param, const char* message, const char* hint) {
  auto& sink = *static_cast<ProblemSink*>(context);
  sink.any = true;
  const std::string name = param ? param : "";
  const auto* entry = sink.table && !name.empty() ? sink.table->find(name) : nullptr;
  const auto key =
      name.empty() ? fmt::format("[{}]", sink.place.prefix) : fmt::format("`{}.{}`", sink.place.prefix, name);
  sink.r.error(entry ? entry->value.span : sink.place.header,
               fmt::format("{}: {}", key, message ? message : "does not fit"), hint ? hint : "");
}

}  // namespace

std::optional<HansaTraits> check_component(const Reading& r, const Chosen& chosen, const Value& params,
                                           const Node* table, const Place& place) {
  const auto& component = *chosen.component;
  const auto refuse = [&](const char* sentence) {
    r.error(place.header, fmt::format("[{}]: `{}` {}", place.prefix, chosen.use, sentence), component.summary);
    return std::nullopt;
  };
  ProblemSink sink{r, table, place};
  HansaProblems problems{sizeof(HansaProblems), &sink, add_problem};
  const bool refused = component.validate && component.validate(&component, &params.raw(), &problems) != 0;
  if (sink.any) return std::nullopt;
  if (refused) return refuse("refuses these parameters and does not say why");
  HansaTraits traits{};
  traits.struct_size = sizeof(HansaTraits);
  if (component.traits && component.traits(&component, &params.raw(), &traits) != 0)
    return refuse("cannot tell its traits for these parameters");
  if (!traits.groups) traits.groups = "";
  return traits;
}

std::vector<std::string> names_of(Params params) {
  std::vector<std::string> names;
  for (const auto* param : params) names.emplace_back(param->name);
  return names;
}

Params params_of(const HansaComponent& component) { return {component.params, component.param_count}; }

Value read_params(const Reading& r, Params params, const Node* table, const Place& place) {
  Value result;
  for (const auto* param : params) {
    const auto key = place.prefix + "." + param->name;
    const auto* entry = table ? table->find(param->name) : nullptr;
    std::optional<Value> value;
    if (entry) {
      if (param->deprecated && *param->deprecated)
        r.warning(entry->key_span, fmt::format("`{}` is deprecated", key), param->deprecated);
      value = ParamReader(r, *param, key).read(entry->value);
    } else if (param->flags & HANSA_PARAM_REQUIRED) {
      r.error(place.header, fmt::format("`{}` is missing", key), fmt::format("{} = …  {}", param->name, param->doc));
    }
    const bool written = value.has_value();
    if (!value && param->default_value) value = Value::copy(*param->default_value);
    if (!value) continue;
    const bool secret = param->flags & HANSA_PARAM_SECRET;
    r.setting(key, secret ? "(secret)" : toml_value(*value), written ? entry->value.span : Span{});
    result.set(param->name, std::move(*value));
  }
  return result;
}

void refuse_unknown(const Reading& r, const Node& table, const std::vector<std::string>& known, const Place& place) {
  for (const auto& entry : table.entries) {
    if (std::find(known.begin(), known.end(), entry.key) != known.end()) continue;
    auto help = did_you_mean(near_names(entry.key, known));
    if (help.empty()) help = known.empty() ? "nothing may stand here" : "known here: " + quoted_list(known, "and");
    r.error(entry.key_span, fmt::format("unknown key `{}` in [{}]", entry.key, place.prefix), std::move(help));
  }
}

std::string choose_one_of(const Reading& r, std::string_view kind) {
  const auto names = r.catalog.names(kind);
  return names.empty()
             ? fmt::format("no plugin of kind {} was found; `hansa plugins list --all` shows where was looked", kind)
             : fmt::format("choose one of: {}", quoted_list(names, "or"));
}

std::optional<Chosen> choose(const Reading& r, std::string_view kind, const Node& table, const Place& place) {
  const auto* entry = table.find("use");
  if (!entry) {
    r.error(place.header, fmt::format("[{}] does not say which plugin to use", place.prefix),
            fmt::format("add use = \"…\"; {}", choose_one_of(r, kind)));
    return std::nullopt;
  }
  const auto& use = entry->value;
  if (use.kind != Node::Kind::Text) {
    r.error(use.span, fmt::format("`{}.use` is {}, but must be a plugin's name", place.prefix, name_of(use.kind)),
            choose_one_of(r, kind));
    return std::nullopt;
  }
  if (const auto* component = r.catalog.find(kind, use.text)) return Chosen{use.text, component, use.span};

  const auto bare = use.text.substr(0, use.text.find('@'));
  if (bare != use.text && r.catalog.find(kind, bare)) {
    r.error(
        use.span,
        fmt::format("{} `{}` is here, but not with the major version {}", kind, bare, use.text.substr(bare.size() + 1)),
        fmt::format("use = \"{}\" takes the one that is installed; `hansa plugins list` shows its version", bare));
    return std::nullopt;
  }
  const auto near = did_you_mean(near_names(bare, r.catalog.names(kind)));
  const auto remark = r.catalog.remark(kind, bare);
  auto help = near.empty() ? choose_one_of(r, kind) + ";" : near;
  help += " " + (remark.empty() ? "`hansa plugins list --all` shows every file that was looked at" : remark);
  r.error(use.span, fmt::format("there is no {} `{}`", kind, use.text), std::move(help));
  return std::nullopt;
}

}  // namespace hansa::config
