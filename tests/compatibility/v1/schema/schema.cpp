#include <hansa/schema.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace hansa {
namespace {

Facet numeric(Facet::Kind kind, double number) {
  Facet facet(kind);
  facet.number = number;
  return facet;
}
Facet textual(Facet::Kind kind, std::string text) {
  Facet facet(kind);
  facet.text = std::move(text);
  return facet;
}
Facet flagged(std::uint32_t flag) {
  Facet facet(Facet::Kind::Flag);
  facet.flag = flag;
  return facet;
}

std::string number_text(double number) {
  char buffer[32];
  if (std::floor(number) == number && std::abs(number) < 1e15) {
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, static_cast<long long>(number)).ptr;
    return {buffer, end};
  }
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
  return {buffer, end};
}

bool is_whole(std::uint32_t type) { return type == HANSA_INT || type == HANSA_BYTES; }
bool is_number(std::uint32_t type) { return is_whole(type) || type == HANSA_REAL || type == HANSA_DURATION; }
bool is_text(std::uint32_t type) { return type == HANSA_TEXT || type == HANSA_CHOICE || type == HANSA_PATH; }

// A file format such as JSON knows fewer types than the contract: a value read from one has the plain type.
bool type_fits(std::uint32_t wanted, std::uint32_t given) {
  if (wanted == given) return true;
  if (is_whole(wanted)) return given == HANSA_INT;
  if (wanted == HANSA_REAL || wanted == HANSA_DURATION) return given == HANSA_REAL || given == HANSA_INT;
  if (is_text(wanted)) return given == HANSA_TEXT;
  return false;
}

std::string with_article(std::uint32_t type) {
  return (type == HANSA_INT ? "an " : "a ") + std::string(name_of(static_cast<HansaType>(type)));
}

double as_real(const HansaValue& value) {
  return value.type == HANSA_REAL || value.type == HANSA_DURATION ? value.real : static_cast<double>(value.integer);
}

std::string quoted(std::string_view text) {
  std::string all = "\"";
  all.append(text).push_back('"');
  return all;
}

std::string shown(const HansaValue& value) {
  if (value.type == HANSA_BOOL) return value.integer ? "true" : "false";
  if (is_whole(value.type)) return std::to_string(value.integer);
  if (is_number(value.type)) return number_text(value.real);
  if (is_text(value.type)) return quoted(text_of(value));
  return name_of(static_cast<HansaType>(value.type));
}

bool in_range(const HansaParam& param, double number) {
  if ((param.flags & HANSA_PARAM_MIN) &&
      !(param.flags & HANSA_PARAM_MIN_EXCLUDED ? number > param.minimum : number >= param.minimum))
    return false;
  if ((param.flags & HANSA_PARAM_MAX) &&
      !(param.flags & HANSA_PARAM_MAX_EXCLUDED ? number < param.maximum : number <= param.maximum))
    return false;
  return true;
}

std::string choices_text(const HansaParam& param) {
  std::string all;
  for (std::uint32_t i = 0; i < param.choice_count; ++i) {
    if (i > 0) all += i + 1 == param.choice_count ? " or " : ", ";
    all += quoted(param.choices[i]);
  }
  return all;
}

std::optional<std::string> scalar_problem(const HansaParam& param, const HansaValue& value) {
  if (is_number(param.type)) {
    const double number = as_real(value);
    if (!std::isfinite(number)) return "must be a finite number";
    if (!in_range(param, number)) return "is " + shown(value) + ", but must be " + range_text(param);
  } else if (param.type == HANSA_CHOICE) {
    for (std::uint32_t i = 0; i < param.choice_count; ++i)
      if (text_of(value) == param.choices[i]) return std::nullopt;
    return "is " + shown(value) + ", but must be " + choices_text(param);
  } else if (param.type == HANSA_TEXT || param.type == HANSA_LIST) {
    const auto length = param.type == HANSA_TEXT ? text_of(value).size() : value.count;
    if (!in_range(param, static_cast<double>(length)))
      return "has length " + std::to_string(length) + ", but its length must be " + range_text(param);
  }
  return std::nullopt;
}

std::optional<std::string> fields_problem(const HansaParam& param, const HansaValue& value) {
  for (std::uint32_t i = 0; i < value.count; ++i) {
    const auto known = std::any_of(param.fields, param.fields + param.field_count, [&](const HansaParam* field) {
      return std::string_view(field->name) == value.keys[i];
    });
    if (!known) return "has no field '" + std::string(value.keys[i]) + "'";
  }
  for (std::uint32_t i = 0; i < param.field_count; ++i) {
    const auto& field = *param.fields[i];
    const auto* held = find(value, field.name);
    if (!held && (field.flags & HANSA_PARAM_REQUIRED))
      return "lacks the required field '" + std::string(field.name) + "'";
    if (!held) continue;
    if (auto problem = why_not(field, *held)) return std::string("field '") + field.name + "' " + *problem;
  }
  return std::nullopt;
}

}  // namespace

Facet at_least(double minimum) { return numeric(Facet::Kind::Minimum, minimum); }
Facet at_most(double maximum) { return numeric(Facet::Kind::Maximum, maximum); }
Facet more_than(double minimum) { return numeric(Facet::Kind::MoreThan, minimum); }
Facet less_than(double maximum) { return numeric(Facet::Kind::LessThan, maximum); }
Facets range(double minimum, double maximum) { return {at_least(minimum), at_most(maximum)}; }
Facet choices(std::vector<std::string> names) {
  Facet facet(Facet::Kind::Choices);
  facet.texts = std::move(names);
  return facet;
}
Facet unit(std::string name) { return textual(Facet::Kind::Unit, std::move(name)); }
Facet required() { return flagged(HANSA_PARAM_REQUIRED); }
Facet secret() { return flagged(HANSA_PARAM_SECRET); }
Facet must_exist() { return flagged(HANSA_PARAM_MUST_EXIST); }
Facet since(std::string version) { return textual(Facet::Kind::Since, std::move(version)); }
Facet deprecated(std::string use_instead) { return textual(Facet::Kind::Deprecated, std::move(use_instead)); }
Facet of_kind(std::string component_kind) { return textual(Facet::Kind::ComponentKind, std::move(component_kind)); }

void ParamRecord::apply(const Facet& facet) {
  switch (facet.kind) {
    case Facet::Kind::Minimum:
      raw.minimum = facet.number;
      raw.flags |= HANSA_PARAM_MIN;
      break;
    case Facet::Kind::MoreThan:
      raw.minimum = facet.number;
      raw.flags |= HANSA_PARAM_MIN | HANSA_PARAM_MIN_EXCLUDED;
      break;
    case Facet::Kind::Maximum:
      raw.maximum = facet.number;
      raw.flags |= HANSA_PARAM_MAX;
      break;
    case Facet::Kind::LessThan:
      raw.maximum = facet.number;
      raw.flags |= HANSA_PARAM_MAX | HANSA_PARAM_MAX_EXCLUDED;
      break;
    case Facet::Kind::Choices: choices = facet.texts; break;
    case Facet::Kind::Unit: unit = facet.text; break;
    case Facet::Kind::Flag: raw.flags |= facet.flag; break;
    case Facet::Kind::Since: since = facet.text; break;
    case Facet::Kind::Deprecated: deprecated = facet.text; break;
    case Facet::Kind::Element: throw std::logic_error("parameter '" + name + "' is no list: list_of does not apply");
    case Facet::Kind::Table: table = facet.table; break;
    case Facet::Kind::ComponentKind: component_kind = facet.text; break;
  }
}

void ParamRecord::limit(double minimum, double maximum) {
  if (!(raw.flags & HANSA_PARAM_MIN) || raw.minimum < minimum) {
    raw.flags = (raw.flags | HANSA_PARAM_MIN) & ~std::uint32_t(HANSA_PARAM_MIN_EXCLUDED);
    raw.minimum = minimum;
  }
  if (std::isfinite(maximum) && (!(raw.flags & HANSA_PARAM_MAX) || raw.maximum > maximum)) {
    raw.flags = (raw.flags | HANSA_PARAM_MAX) & ~std::uint32_t(HANSA_PARAM_MAX_EXCLUDED);
    raw.maximum = maximum;
  }
}

void ParamRecord::finish(bool optional) {
  const auto refuse = [&](const std::string& why) { throw std::logic_error("parameter '" + name + "' " + why); };
  if (raw.type == HANSA_CHOICE && choices.empty()) refuse("is an enum: give choices({…}), one per enumerator");
  if (!choices.empty() && raw.type != HANSA_CHOICE) refuse("has choices, but is neither a text nor an enum");
  if (raw.type == HANSA_COMPONENT && component_kind.empty()) refuse("is a component: give of_kind(\"aggregator\")");
  // A component without a name, a table with a required field: nothing to fall back to.
  const auto unnamed = raw.type == HANSA_COMPONENT && fallback && text_of(*fallback).empty();
  if (raw.type == HANSA_TABLE && !optional)
    for (const auto* field : table->params())
      if (field->flags & HANSA_PARAM_REQUIRED) raw.flags |= HANSA_PARAM_REQUIRED;
  if (unnamed) raw.flags |= HANSA_PARAM_REQUIRED;
  if (raw.flags & HANSA_PARAM_REQUIRED) fallback.reset();
  for (const auto& choice : choices) choice_pointers.push_back(choice.c_str());

  raw.struct_size = sizeof(HansaParam);
  raw.name = name.c_str();
  raw.doc = doc.c_str();
  raw.unit = unit.c_str();
  raw.choices = choice_pointers.data();
  raw.choice_count = static_cast<std::uint32_t>(choice_pointers.size());
  raw.default_value = fallback ? &fallback->raw() : nullptr;
  raw.element = element ? &element->raw : nullptr;
  raw.fields = table ? table->params().data() : nullptr;
  raw.field_count = table ? static_cast<std::uint32_t>(table->params().size()) : 0;
  raw.component_kind = component_kind.c_str();
  raw.since = since.c_str();
  raw.deprecated = deprecated.c_str();
  if (fallback)
    if (auto problem = why_not(raw, *fallback)) refuse("has a default that " + *problem);
}

std::string range_text(const HansaParam& param) {
  const bool low = param.flags & HANSA_PARAM_MIN, high = param.flags & HANSA_PARAM_MAX;
  const bool above = param.flags & HANSA_PARAM_MIN_EXCLUDED, below = param.flags & HANSA_PARAM_MAX_EXCLUDED;
  const auto from = number_text(param.minimum), to = number_text(param.maximum);
  if (low && high && !above && !below) return from + " to " + to;
  std::string text;
  if (low) text = (above ? "more than " : "at least ") + from;
  if (low && high) text += " and ";
  if (high) text += (below ? "less than " : "at most ") + to;
  return text;
}

std::optional<std::string> why_not(const HansaParam& param, const HansaValue& value, Depth depth) {
  if (!type_fits(param.type, value.type))
    return "is " + with_article(value.type) + ", but must be " + with_article(param.type);
  if (auto problem = scalar_problem(param, value)) return problem;
  if (depth == Depth::This) return std::nullopt;
  if (param.type == HANSA_LIST)
    for (std::uint32_t i = 0; i < value.count; ++i)
      if (auto problem = why_not(*param.element, *value.items[i]))
        return "element " + std::to_string(i + 1) + " " + *problem;
  if (param.type == HANSA_TABLE) return fields_problem(param, value);
  return std::nullopt;
}

const HansaParam* SchemaBase::find(std::string_view name) const {
  for (const auto* param : pointers_)
    if (name == param->name) return param;
  return nullptr;
}

Value SchemaBase::defaults() const {
  Value table;
  for (const auto& record : records_)
    if (record->fallback) table.set(record->name, *record->fallback);
  return table;
}

void SchemaBase::adopt(std::shared_ptr<ParamRecord> record) {
  if (find(record->name)) throw std::logic_error("parameter '" + record->name + "' is declared twice");
  pointers_.push_back(&record->raw);
  records_.push_back(std::move(record));
}

void SchemaBase::refuse_unknown(const HansaValue& table) const {
  if (table.type != HANSA_TABLE && table.type != HANSA_COMPONENT)
    throw std::invalid_argument("the parameters are no table");
  for (std::uint32_t i = 0; i < table.count; ++i)
    if (!find(table.keys[i])) throw std::invalid_argument("unknown parameter '" + std::string(table.keys[i]) + "'");
}

namespace schema_detail {

void bad_value(const ParamRecord& record, const HansaValue& value) {
  throw std::invalid_argument("parameter '" + record.name + "': " + shown(value) + " does not fit");
}
void check(const ParamRecord& record, const HansaValue& value) {
  if (auto problem = why_not(record.raw, value))
    throw std::invalid_argument("parameter '" + record.name + "' " + *problem);
}
std::int64_t integer_of(const ParamRecord& record, const HansaValue& value) {
  if (!is_whole(value.type)) bad_value(record, value);
  return value.integer;
}
double real_of(const ParamRecord&, const HansaValue& value) { return as_real(value); }
std::size_t choice_of(const ParamRecord& record, const HansaValue& value) {
  const auto at = std::find(record.choices.begin(), record.choices.end(), text_of(value));
  if (at == record.choices.end()) bad_value(record, value);
  return static_cast<std::size_t>(at - record.choices.begin());
}

}  // namespace schema_detail
}  // namespace hansa
