// Parameters, declared once: a struct's members with their docs, ranges and units. Plugins use it through plugin.hpp, the
// core for its own sections of the TOML file. Torch-free.
//
//   struct Params { double floor = 0; std::int64_t rounds = 10; std::optional<Seconds> limit; std::string mode = "nearest"; };
//   Schema<Params> schema;
//   schema.param(&Params::floor, "floor", "Smallest share of one client.", range(0, 1), "fraction")
//       .param(&Params::mode, "mode", "How to round.", choices({"nearest", "stochastic"}));
//   schema.params();                    // HansaParam table: for the config's checks, describe, JSON Schema
//   Params p = schema.read(value);      // throws std::invalid_argument with a sentence
//
// Defaults come from Params{}. Member types: bool, integers, float and double, std::string, enums (with choices, in the
// enumerators' order), ByteSize, Seconds, std::filesystem::path, ComponentChoice, a struct with a schema of its own
// (table(schema)), std::vector of those (list_of(facets of an element)), std::optional of those (absent is a value).
// A wrong declaration throws std::logic_error when it is made. Immutable once built: any thread may read.
#pragma once
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <hansa/value.hpp>

namespace hansa {

struct ByteSize {
  std::uint64_t value = 0;
  auto operator<=>(const ByteSize&) const = default;
};
constexpr ByteSize KiB(std::uint64_t n) { return {n << 10}; }
constexpr ByteSize MiB(std::uint64_t n) { return {n << 20}; }
constexpr ByteSize GiB(std::uint64_t n) { return {n << 30}; }
struct Seconds {
  double value = 0;
  auto operator<=>(const Seconds&) const = default;
};
struct ComponentChoice {  // an inner `{ use = "krum", … }`; Host::inner makes the component
  std::string name;
  Value params;              // a component value with everything resolved
  std::uint64_t traits = 0;  // HANSA_TRAIT_…, of the component with these parameters
};

class SchemaBase;

// One remark about a parameter. A plain string literal is its unit.
struct Facet {
  enum class Kind : std::uint8_t {
    Minimum,
    Maximum,
    MoreThan,
    LessThan,
    Choices,
    Unit,
    Flag,
    Since,
    Deprecated,
    Element,
    Table,
    ComponentKind
  };
  Facet(const char* unit) : kind(Kind::Unit), text(unit) {}
  explicit Facet(Kind k) : kind(k) {}
  Kind kind;
  double number = 0;
  std::uint32_t flag = 0;
  std::string text;
  std::vector<std::string> texts;
  std::vector<Facet> facets;
  std::shared_ptr<const SchemaBase> table;
};
using Facets = std::vector<Facet>;
Facets range(double minimum, double maximum);  // both ends allowed
Facet at_least(double minimum);
Facet at_most(double maximum);
Facet more_than(double minimum);  // the end itself is not allowed
Facet less_than(double maximum);
Facet choices(std::vector<std::string> names);
Facet unit(std::string name);
Facet required();
Facet secret();      // never printed, never stored
Facet must_exist();  // a path
Facet since(std::string version);
Facet deprecated(std::string use_instead);
Facet of_kind(std::string component_kind);  // a ComponentChoice: "aggregator"
template <class... F>
Facet list_of(F&&... element);

// What the C side sees of one parameter, and everything that it points at. Made by a schema; never moves afterwards.
struct ParamRecord {
  HansaParam raw{};
  std::string name, doc, unit, component_kind, since, deprecated;
  std::vector<std::string> choices;
  std::vector<const char*> choice_pointers;
  std::optional<Value> fallback;
  std::shared_ptr<ParamRecord> element;
  std::shared_ptr<const SchemaBase> table;

  void apply(const Facet&);
  void apply(const Facets& all) {
    for (const auto& facet : all) apply(facet);
  }
  void finish(bool optional);  // sets the pointers; throws std::logic_error when the declaration makes no sense
  void limit(double minimum, double maximum);  // what the member's type can hold, unless a narrower range is given
};

// Why a value does not satisfy its parameter (type, range, choices, length; lists, tables and components element by
// element, naming the place), or nothing. Paths are not looked up on disk. For one level only: set `deep` to Depth::This.
enum class Depth : std::uint8_t { This, All };
std::optional<std::string> why_not(const HansaParam&, const HansaValue&, Depth = Depth::All);
std::string range_text(const HansaParam&);  // "0 to 1", "more than 0", "" when free

class SchemaBase {
 public:
  virtual ~SchemaBase() = default;
  std::span<const HansaParam* const> params() const { return pointers_; }
  const HansaParam* find(std::string_view name) const;
  Value defaults() const;  // a table of all default values; required and absent ones are left out

 protected:
  void adopt(std::shared_ptr<ParamRecord>);
  void refuse_unknown(const HansaValue& table) const;
  std::vector<std::shared_ptr<const ParamRecord>> records_;
  std::vector<const HansaParam*> pointers_;
};

namespace schema_detail {

[[noreturn]] void bad_value(const ParamRecord&, const HansaValue&);
void check(const ParamRecord&, const HansaValue&);  // throws what why_not says
std::int64_t integer_of(const ParamRecord&, const HansaValue&);
double real_of(const ParamRecord&, const HansaValue&);
std::size_t choice_of(const ParamRecord&, const HansaValue&);  // its position

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {
  using type = T;
};
template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {
  using type = T;
};

template <class T>
void declare(ParamRecord& record, const Facets& facets);
template <class T>
Value write(const T& from, const ParamRecord& record);
template <class T>
void read(const HansaValue& from, const ParamRecord& record, T& to);

}  // namespace schema_detail

template <class P>
class Schema : public SchemaBase {
 public:
  template <class M, class... F>
  Schema& param(M P::*member, std::string name, std::string doc, F&&... facets) {
    Facets all;
    (append(all, std::forward<F>(facets)), ...);
    auto record = std::make_shared<ParamRecord>();
    record->name = std::move(name);
    record->doc = std::move(doc);
    schema_detail::declare<M>(*record, all);
    const P defaults{};
    constexpr bool optional = schema_detail::is_optional<M>::value;
    if (!(record->raw.flags & HANSA_PARAM_REQUIRED)) {
      if constexpr (!optional)
        record->fallback = schema_detail::write(defaults.*member, *record);
      else if (defaults.*member)
        record->fallback = schema_detail::write(*(defaults.*member), *record);
    }
    record->finish(optional);
    fields_.push_back(std::make_shared<FieldOf<M>>(record, member));
    adopt(std::move(record));
    return *this;
  }

  // Absent keys keep their defaults; unknown keys, wrong types and values out of range throw std::invalid_argument.
  P read(const HansaValue& table) const {
    refuse_unknown(table);
    P result{};
    for (const auto& field : fields_) field->read(table, result);
    return result;
  }
  Value write(const P& from) const {
    Value table;
    for (const auto& field : fields_) field->write(from, table);
    return table;
  }

 private:
  static void append(Facets& all, Facet one) { all.push_back(std::move(one)); }
  static void append(Facets& all, Facets many) { all.insert(all.end(), many.begin(), many.end()); }

  struct Field {
    explicit Field(std::shared_ptr<const ParamRecord> record) : declared(std::move(record)) {}
    virtual ~Field() = default;
    virtual void read(const HansaValue& table, P& to) const = 0;
    virtual void write(const P& from, Value& table) const = 0;
    std::shared_ptr<const ParamRecord> declared;
  };
  template <class M>
  struct FieldOf final : Field {
    FieldOf(std::shared_ptr<const ParamRecord> record, M P::*m) : Field(std::move(record)), member(m) {}
    void read(const HansaValue& table, P& to) const override {
      const auto& record = *this->declared;
      const auto* held = find(table, record.name);
      if (!held) {
        if (record.raw.flags & HANSA_PARAM_REQUIRED)
          throw std::invalid_argument("parameter '" + record.name + "' is required");
        return;
      }
      schema_detail::check(record, *held);
      if constexpr (schema_detail::is_optional<M>::value)
        schema_detail::read(*held, record, (to.*member).emplace());
      else
        schema_detail::read(*held, record, to.*member);
    }
    void write(const P& from, Value& table) const override {
      const auto& record = *this->declared;
      if constexpr (schema_detail::is_optional<M>::value) {
        if (from.*member) table.set(record.name, schema_detail::write(*(from.*member), record));
      } else {
        table.set(record.name, schema_detail::write(from.*member, record));
      }
    }
    static const HansaValue* find(const HansaValue& table, const std::string& name) { return hansa::find(table, name); }
    M P::*member;
  };
  std::vector<std::shared_ptr<const Field>> fields_;
};

template <class S>
Facet table(Schema<S> schema) {
  Facet facet(Facet::Kind::Table);
  facet.table = std::make_shared<const Schema<S>>(std::move(schema));
  return facet;
}

namespace schema_detail {
inline void append_facet(Facets& all, Facet one) { all.push_back(std::move(one)); }
inline void append_facet(Facets& all, Facets many) { all.insert(all.end(), many.begin(), many.end()); }
}  // namespace schema_detail
template <class... F>
Facet list_of(F&&... element) {
  Facet facet(Facet::Kind::Element);
  (schema_detail::append_facet(facet.facets, std::forward<F>(element)), ...);
  return facet;
}

namespace schema_detail {

template <class T>
const Schema<T>& schema_of(const ParamRecord& record) {
  const auto* typed = dynamic_cast<const Schema<T>*>(record.table.get());
  if (!typed)
    throw std::logic_error("parameter '" + record.name + "' is a struct: declare it with table(Schema<that struct>)");
  return *typed;
}

template <class T>
void declare(ParamRecord& record, const Facets& facets) {
  auto& type = record.raw.type;
  if constexpr (is_optional<T>::value) {
    declare<typename is_optional<T>::type>(record, facets);
  } else if constexpr (is_vector<T>::value) {
    type = HANSA_LIST;
    Facets of_element, own;
    for (const auto& facet : facets)
      if (facet.kind == Facet::Kind::Element)
        of_element = facet.facets;
      else
        own.push_back(facet);
    record.element = std::make_shared<ParamRecord>();
    record.element->name = record.name;
    declare<typename is_vector<T>::type>(*record.element, of_element);
    record.element->finish(true);
    record.apply(own);
  } else {
    record.apply(facets);
    if constexpr (std::is_same_v<T, bool>) {
      type = HANSA_BOOL;
    } else if constexpr (std::is_enum_v<T>) {
      type = HANSA_CHOICE;
    } else if constexpr (std::is_integral_v<T>) {
      type = HANSA_INT;
      if constexpr (sizeof(T) < 8)
        record.limit(double(std::numeric_limits<T>::min()), double(std::numeric_limits<T>::max()));
      else if constexpr (std::is_unsigned_v<T>)
        record.limit(0, std::numeric_limits<double>::infinity());
    } else if constexpr (std::is_floating_point_v<T>) {
      type = HANSA_REAL;
    } else if constexpr (std::is_same_v<T, std::string>) {
      type = record.choices.empty() ? HANSA_TEXT : HANSA_CHOICE;
    } else if constexpr (std::is_same_v<T, ByteSize>) {
      type = HANSA_BYTES;
      record.limit(0, std::numeric_limits<double>::infinity());
    } else if constexpr (std::is_same_v<T, Seconds>) {
      type = HANSA_DURATION;
      record.limit(0, std::numeric_limits<double>::infinity());
    } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
      type = HANSA_PATH;
    } else if constexpr (std::is_same_v<T, ComponentChoice>) {
      type = HANSA_COMPONENT;
    } else {
      type = HANSA_TABLE;
      schema_of<T>(record);
    }
  }
}

template <class T>
Value write(const T& from, const ParamRecord& record) {
  if constexpr (is_vector<T>::value) {
    auto list = Value::list();
    for (const auto& item : from) list.push_back(write<typename is_vector<T>::type>(item, *record.element));
    return list;
  } else if constexpr (std::is_same_v<T, bool>) {
    return Value::boolean(from);
  } else if constexpr (std::is_enum_v<T>) {
    const auto index = static_cast<std::size_t>(from);
    if (index >= record.choices.size())
      throw std::logic_error("parameter '" + record.name + "' is an enum: give choices({…}), one per enumerator");
    return Value::choice(record.choices[index]);
  } else if constexpr (std::is_integral_v<T>) {
    if (!std::in_range<std::int64_t>(from))
      throw std::logic_error("parameter '" + record.name + "' exceeds 64 signed bits");
    return Value::integer(static_cast<std::int64_t>(from));
  } else if constexpr (std::is_floating_point_v<T>) {
    return Value::real(from);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return record.choices.empty() ? Value::text(from) : Value::choice(from);
  } else if constexpr (std::is_same_v<T, ByteSize>) {
    return Value::bytes(from.value);
  } else if constexpr (std::is_same_v<T, Seconds>) {
    return Value::seconds(from.value);
  } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
    return Value::path(from.string());
  } else if constexpr (std::is_same_v<T, ComponentChoice>) {
    auto value = Value::component(from.name, {}, from.traits);
    for (std::size_t i = 0; i < from.params.size(); ++i) value.set(from.params.key(i), from.params.at(i));
    return value;
  } else {
    return schema_of<T>(record).write(from);
  }
}

template <class T>
void read(const HansaValue& from, const ParamRecord& record, T& to) {
  if constexpr (is_vector<T>::value) {
    to.clear();
    for (std::uint32_t i = 0; i < from.count; ++i) {
      typename is_vector<T>::type item{};
      read(*from.items[i], *record.element, item);
      to.push_back(std::move(item));
    }
  } else if constexpr (std::is_same_v<T, bool>) {
    to = from.integer != 0;
  } else if constexpr (std::is_enum_v<T>) {
    to = static_cast<T>(choice_of(record, from));
  } else if constexpr (std::is_integral_v<T>) {
    const auto held = integer_of(record, from);
    if (!std::in_range<T>(held)) bad_value(record, from);
    to = static_cast<T>(held);
  } else if constexpr (std::is_floating_point_v<T>) {
    to = static_cast<T>(real_of(record, from));
  } else if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::filesystem::path>) {
    to = std::string(text_of(from));
  } else if constexpr (std::is_same_v<T, ByteSize>) {
    to.value = static_cast<std::uint64_t>(integer_of(record, from));
  } else if constexpr (std::is_same_v<T, Seconds>) {
    to.value = real_of(record, from);
  } else if constexpr (std::is_same_v<T, ComponentChoice>) {
    to.name = std::string(text_of(from));
    to.params = Value::copy(from);
    to.traits = static_cast<std::uint64_t>(from.integer);
  } else {
    to = schema_of<T>(record).read(from);
  }
}

}  // namespace schema_detail
}  // namespace hansa
