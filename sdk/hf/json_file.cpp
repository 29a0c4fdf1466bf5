#include "hf/json_file.hpp"

#include <algorithm>
#include <unordered_set>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.hpp"

namespace hansa::hf {

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::unordered_set<std::string>> keys_of_open_objects;
  const auto watch = [&](int, Event event, nlohmann::json& value) {
    if (event == Event::object_start) keys_of_open_objects.emplace_back();
    if (event == Event::object_end) keys_of_open_objects.pop_back();
    if (event == Event::key && !keys_of_open_objects.back().insert(value.get_ref<const std::string&>()).second) {
      throw Error(fmt::format("{}: the key {} occurs twice in one object", where, value.dump()));
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, watch);
  } catch (const nlohmann::json::exception& problem) {
    throw Error(fmt::format("{} is not valid JSON: {}", where, problem.what()));
  }
}

nlohmann::json read_json_file(const std::filesystem::path& path) { return parse_json(read_file(path), path.string()); }

void allow_only(const nlohmann::json& object, std::initializer_list<std::string_view> keys, const std::string& where) {
  if (!object.is_object()) throw Error(fmt::format("{} is not a JSON object", where));
  for (const auto& [key, value] : object.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      throw Error(fmt::format("{}: the key '{}' is not supported", where, key));
    }
  }
}

bool is_absent(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  return at == object.end() || at->is_null();
}

bool flag_of(const nlohmann::json& object, const char* key, bool when_absent, const std::string& where) {
  if (is_absent(object, key)) return when_absent;
  const auto& value = object.at(key);
  if (!value.is_boolean()) throw Error(fmt::format("{}: {} is {}, not true or false", where, key, value.dump()));
  return value.get<bool>();
}

std::string text_of(const nlohmann::json& object, const char* key, const std::string& where) {
  if (is_absent(object, key)) throw Error(fmt::format("{}: {} is missing", where, key));
  const auto& value = object.at(key);
  if (!value.is_string()) throw Error(fmt::format("{}: {} is {}, not a text", where, key, value.dump()));
  return value.get<std::string>();
}

}  // namespace hansa::hf
