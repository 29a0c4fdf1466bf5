#include "hf/decoder.hpp"

#include <cstdlib>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/byte_alphabet.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

const std::string kWhere = "tokenizer.json: decoder";

std::size_t count_of(const nlohmann::json& part, const char* key) {
  if (is_absent(part, key)) return 0;
  if (!part.at(key).is_number_unsigned())
    throw Error(fmt::format("{}: {} = {} is not a count", kWhere, key, part.at(key).dump()));
  return part.at(key).get<std::size_t>();
}

// A token with a character outside the byte alphabet stands for its own text: added tokens do.
void append_bytes_of(std::string& bytes, std::string_view token) {
  const auto before = bytes.size();
  for (std::size_t at = 0; at < token.size();) {
    const auto byte = byte_of_character(next_code_point(token, at));
    if (!byte) {
      bytes.resize(before);
      bytes += token;
      return;
    }
    bytes.push_back(*byte);
  }
}

std::string joined(const std::vector<std::string>& tokens) {
  std::string text;
  for (const auto& token : tokens) text += token;
  return text;
}

std::optional<char> byte_token(const std::string& token) {  // "<0x41>"
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  char* end = nullptr;
  const auto value = std::strtoul(token.c_str() + 3, &end, 16);
  const bool two_digits = end == token.c_str() + 5 && token[3] != '+' && token[3] != '-' && token[3] != ' ';
  return two_digits ? std::optional<char>(static_cast<char>(value)) : std::nullopt;
}

// A run of byte tokens is text when it is UTF-8, else one replacement character for each byte.
std::vector<std::string> without_byte_tokens(std::vector<std::string> tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (!first_invalid_utf8(bytes)) {
      out.push_back(bytes);
    } else {
      for (std::size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (auto& token : tokens) {
    if (const auto byte = byte_token(token)) {
      bytes.push_back(*byte);
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  return out;
}

void strip(std::string& token, const std::string& content, std::size_t start, std::size_t stop) {
  std::string_view rest = token;
  for (std::size_t i = 0; i < start && rest.starts_with(content); ++i) rest.remove_prefix(content.size());
  for (std::size_t i = 0; i < stop && rest.ends_with(content); ++i) rest.remove_suffix(content.size());
  token = std::string(rest);
}

}  // namespace

Decoder::Decoder(const nlohmann::json& part) : none_(part.is_null()) {
  if (!none_) add(part);
}

void Decoder::add(const nlohmann::json& part) {
  const auto type = part.is_object() ? text_of(part, "type", kWhere) : throw Error(kWhere + " is not an object");
  if (type == "Sequence") {
    allow_only(part, {"type", "decoders"}, kWhere);
    for (const auto& member : part.at("decoders")) add(member);
  } else if (type == "ByteLevel") {
    allow_only(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, kWhere);  // none of them acts here
    steps_.emplace_back(ByteLevel{});
  } else if (type == "ByteFallback") {
    allow_only(part, {"type"}, kWhere);
    steps_.emplace_back(ByteFallback{});
  } else if (type == "Fuse") {
    allow_only(part, {"type"}, kWhere);
    steps_.emplace_back(Fuse{});
  } else if (type == "Strip") {
    allow_only(part, {"type", "content", "start", "stop"}, kWhere);
    const auto content = text_of(part, "content", kWhere);
    if (content.empty() || sequence_length(content[0]) != content.size()) {
      throw Error(fmt::format("{}: content of Strip is '{}', not one character", kWhere, content));
    }
    steps_.emplace_back(Strip{content, count_of(part, "start"), count_of(part, "stop")});
  } else if (type == "Replace") {
    allow_only(part, {"type", "pattern", "content"}, kWhere);
    if (is_absent(part, "pattern")) throw Error(kWhere + ": pattern is missing");
    steps_.emplace_back(ReplaceText{pattern_of(part.at("pattern"), kWhere), text_of(part, "content", kWhere)});
  } else {
    throw Error(fmt::format(
        "{}: type '{}' is not supported; supported: ByteFallback, ByteLevel, Fuse, Replace, Sequence, Strip", kWhere,
        type));
  }
}

std::vector<std::string> Decoder::apply(const Step& step, std::vector<std::string> tokens, MatchSpace& space) {
  if (std::holds_alternative<ByteLevel>(step)) {
    std::string bytes;
    for (const auto& token : tokens) append_bytes_of(bytes, token);
    return {with_replacements(bytes)};
  }
  if (std::holds_alternative<ByteFallback>(step)) return without_byte_tokens(std::move(tokens));
  if (std::holds_alternative<Fuse>(step)) return {joined(tokens)};
  for (auto& token : tokens) {
    if (const auto* how = std::get_if<Strip>(&step)) {
      strip(token, how->content, how->start, how->stop);
    } else {
      token = std::get<ReplaceText>(step).apply(token, space);
    }
  }
  return tokens;
}

std::string Decoder::run(std::vector<std::string> tokens) const {
  if (none_) {
    std::string text;
    for (const auto& token : tokens) text += (&token == &tokens.front() ? "" : " ") + token;
    return text;
  }
  MatchSpace space;
  for (const auto& step : steps_) tokens = apply(step, std::move(tokens), space);
  return joined(tokens);
}

}  // namespace hansa::hf
