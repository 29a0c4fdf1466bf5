#include "base/value_json.hpp"

#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace hansa {
namespace {

using nlohmann::json;
constexpr int kDeepest = 64;  // no parameter nests deeper; hostile text does

json encode(const HansaValue& value) {
  switch (value.type) {
    case HANSA_BOOL: return value.integer != 0;
    case HANSA_INT:
    case HANSA_BYTES: return value.integer;
    case HANSA_REAL:
    case HANSA_DURATION:
      if (!std::isfinite(value.real)) throw Error("a number that is not finite has no JSON form");
      return value.real;
    case HANSA_TEXT:
    case HANSA_CHOICE:
    case HANSA_PATH: return text_of(value);
    case HANSA_LIST: {
      auto list = json::array();
      for (std::uint32_t i = 0; i < value.count; ++i) list.push_back(encode(*value.items[i]));
      return list;
    }
    case HANSA_TABLE:
    case HANSA_COMPONENT: {
      auto table = json::object();
      for (std::uint32_t i = 0; i < value.count; ++i) table[value.keys[i]] = encode(*value.items[i]);
      if (value.type == HANSA_COMPONENT) table["use"] = text_of(value);
      return table;
    }
    default: throw Error(fmt::format("a value of unknown type {} has no JSON form", value.type));
  }
}

Value decode(const json& from, int depth) {
  if (depth > kDeepest) throw Error(fmt::format("JSON nests deeper than {} levels", kDeepest));
  switch (from.type()) {
    case json::value_t::boolean: return Value::boolean(from.get<bool>());
    case json::value_t::number_unsigned:
      if (from.get<std::uint64_t>() > INT64_MAX) throw Error(fmt::format("{} exceeds 64 signed bits", from.dump()));
      [[fallthrough]];
    case json::value_t::number_integer: return Value::integer(from.get<std::int64_t>());
    case json::value_t::number_float: return Value::real(from.get<double>());
    case json::value_t::string: return Value::text(from.get<std::string>());
    case json::value_t::array: {
      auto list = Value::list();
      for (const auto& item : from) list.push_back(decode(item, depth + 1));
      return list;
    }
    case json::value_t::object: {
      const auto use = from.find("use");
      const bool component = use != from.end() && use->is_string();
      auto table = component ? Value::component(use->get<std::string>()) : Value();
      for (const auto& [key, item] : from.items())
        if (!component || key != "use") table.set(key, decode(item, depth + 1));
      return table;
    }
    default: throw Error("JSON null is no value: leave the key out");
  }
}

}  // namespace

std::string to_json(const HansaValue& value) {
  try {
    return encode(value).dump();
  } catch (const json::exception& e) {
    throw Error(fmt::format("cannot write a value as JSON: {}", e.what()));
  }
}

Value value_from_json(std::string_view text) {
  int depth = 0;  // before parsing: the parser itself must not see text that nests without end
  for (const char c : text) {
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (depth > 100'000) throw Error("JSON nests too deep");
  }
  try {
    return decode(json::parse(text), 0);
  } catch (const json::exception& e) {
    throw Error(fmt::format("malformed JSON: {}", e.what()));
  }
}

}  // namespace hansa
