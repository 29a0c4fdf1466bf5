// JSON from files that others wrote: parsed with nlohmann, and refused with the file's name when it is no JSON or a key
// occurs twice (parsers disagree about which one counts). Throws Error.
#pragma once
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace hansa::hf {

nlohmann::json parse_json(std::string_view text, const std::string& where);
nlohmann::json read_json_file(const std::filesystem::path& path);

// For the parts of tokenizer.json. `where` names the part in messages.
void allow_only(const nlohmann::json& object, std::initializer_list<std::string_view> keys, const std::string& where);
// Null and absent are the same. Throws when the value is of another type.
bool flag_of(const nlohmann::json& object, const char* key, bool when_absent, const std::string& where);
std::string text_of(const nlohmann::json& object, const char* key, const std::string& where);  // throws when absent
bool is_absent(const nlohmann::json& object, const char* key);

}  // namespace hansa::hf
