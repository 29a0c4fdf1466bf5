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

const std::string kDecoder = "tokenizer.json: decoder";
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::size_t count_of(const nlohmann::json& part, const char* key) {
  if (is_absent(part, key)) return 0;
  if (!part.at(key).is_number_unsigned())
    throw Error(fmt::format("{}: {} = {} is not a count", kDecoder, key, part.at(key).dump()));
  return part.at(key).get<std::size_t>();
}

std::string text_character(const nlohmann::json& part, const char* key) {
  auto text = text_of(part, key, kDecoder);
  if (text.empty() || sequence_length(text[0]) != text.size())
    throw Error(fmt::format("{}: {} is '{}', not one character", kDecoder, key, text));
  return text;
}

// A token with a character outside the byte alphabet stands for its own text: added tokens do.
std::string unescaped(std::string token) {
  std::string bytes;
  for (std::size_t at = 0; at < token.size();) {
    const auto byte = byte_of_character(next_code_point(token, at));
    if (!byte) return token;
    bytes.push_back(*byte);
  }
  return bytes;
}

std::optional<char> byte_token(std::string_view token) {  // "<0x41>"
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const std::string digits(token.substr(3, 2));
  char* end = nullptr;
  const auto value = std::strtoul(digits.c_str(), &end, 16);
  const bool two_digits = end == digits.c_str() + 2 && digits[0] != '-' && digits[0] != ' ';
  return two_digits ? std::optional<char>(static_cast<char>(value)) : std::nullopt;
}

// A run of byte tokens is text when it is UTF-8, else one replacement character for each byte.
void flush(std::string& bytes, std::string& to) {
  if (!first_invalid_utf8(bytes)) {
    to += bytes;
  } else {
    for (std::size_t i = 0; i < bytes.size(); ++i) to += kReplacement;
  }
  bytes.clear();
}

std::string joined_with_byte_tokens(const std::vector<std::string_view>& tokens) {
  std::string text, bytes;
  for (const auto token : tokens) {
    if (const auto byte = byte_token(token)) {
      bytes.push_back(*byte);
      continue;
    }
    if (!bytes.empty()) flush(bytes, text);
    text += token;
  }
  flush(bytes, text);
  return text;
}

std::vector<std::string> without_byte_tokens(const std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto put_bytes = [&] {
    if (bytes.empty()) return;
    if (first_invalid_utf8(bytes)) {
      for (std::size_t i = 0; i < bytes.size(); ++i) out.emplace_back(kReplacement);
      bytes.clear();
    } else {
      out.push_back(std::exchange(bytes, {}));
    }
  };
  for (const auto& token : tokens) {
    if (const auto byte = byte_token(token)) {
      bytes.push_back(*byte);
      continue;
    }
    put_bytes();
    out.push_back(token);
  }
  put_bytes();
  return out;
}

void strip(std::string& token, const std::string& content, std::size_t start, std::size_t stop) {
  std::string_view rest = token;
  for (std::size_t i = 0; i < start && rest.starts_with(content); ++i) rest.remove_prefix(content.size());
  for (std::size_t i = 0; i < stop && rest.ends_with(content); ++i) rest.remove_suffix(content.size());
  token = std::string(rest);
}

std::string replaced(std::string_view text, std::string_view what, std::string_view by) {
  std::string out;
  std::size_t done = 0;
  for (auto at = text.find(what); at != text.npos; at = text.find(what, done)) {
    out.append(text, done, at - done).append(by);
    done = at + what.size();
  }
  return out.append(text.substr(done));
}

// Spaces that English does not have, which BERT's decoder takes away in this order.
std::string cleaned_up(std::string token) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  if (token.find(' ') == token.npos) return token;
  for (const auto& [what, by] : kRules) token = replaced(token, what, by);
  return token;
}

}  // namespace

Decoder::Decoder(const nlohmann::json& part) : none_(part.is_null()) {
  if (!none_) add(part);
}

void Decoder::add_token_by_token(Step step) {
  if (steps_.size() == token_by_token_) {
    ++token_by_token_;
    if (std::holds_alternative<Metaspace>(step) || std::holds_alternative<Words>(step)) first_differs_ = true;
  }
  steps_.push_back(std::move(step));
}

void Decoder::add(const nlohmann::json& part) {
  const auto type = part.is_object() ? text_of(part, "type", kDecoder) : throw Error(kDecoder + " is not an object");
  if (type == "Sequence") {
    allow_only(part, {"type", "decoders"}, kDecoder);
    for (const auto& member : part.at("decoders")) add(member);
  } else if (type == "ByteLevel") {
    allow_only(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, kDecoder);  // none of them acts here
    add_token_by_token(Bytes{});
    steps_.emplace_back(ReplaceBadBytes{});
  } else if (type == "ByteFallback") {
    allow_only(part, {"type"}, kDecoder);
    steps_.emplace_back(ByteFallback{});
  } else if (type == "Fuse") {
    allow_only(part, {"type"}, kDecoder);
    steps_.emplace_back(Fuse{});
  } else if (type == "Strip") {
    allow_only(part, {"type", "content", "start", "stop"}, kDecoder);
    add_token_by_token(Strip{text_character(part, "content"), count_of(part, "start"), count_of(part, "stop")});
  } else if (type == "Replace") {
    add_token_by_token(ReplaceText(part, kDecoder));
  } else if (type == "Metaspace") {
    allow_only(part, {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}, kDecoder);
    const bool never = !is_absent(part, "prepend_scheme") && part.at("prepend_scheme") == "never";
    add_token_by_token(Metaspace{text_character(part, "replacement"), !never});
  } else if (type == "WordPiece") {
    allow_only(part, {"type", "prefix", "cleanup"}, kDecoder);
    add_token_by_token(Words{text_of(part, "prefix", kDecoder), flag_of(part, "cleanup", true, kDecoder)});
  } else if (type == "BPEDecoder") {
    allow_only(part, {"type", "suffix"}, kDecoder);
    steps_.emplace_back(EndOfWord{text_of(part, "suffix", kDecoder)});
  } else {
    throw Error(
        fmt::format("{}: type '{}' is not supported; supported: BPEDecoder, ByteFallback, ByteLevel, Fuse, "
                    "Metaspace, Replace, Sequence, Strip, WordPiece",
                    kDecoder, type));
  }
}

std::string Decoder::of_token(const Step& step, std::string token, Place place, MatchSpace& space) {
  if (std::holds_alternative<Bytes>(step)) return unescaped(std::move(token));
  if (const auto* how = std::get_if<Strip>(&step)) {
    strip(token, how->content, how->start, how->stop);
  } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
    return replaced(token, metaspace->mark, place == Place::First && metaspace->prepended ? "" : " ");
  } else if (const auto* words = std::get_if<Words>(&step)) {
    if (place == Place::Later)
      token = token.starts_with(words->prefix) ? token.substr(words->prefix.size()) : " " + token;
    if (words->clean_up) return cleaned_up(std::move(token));
  } else {
    return std::get<ReplaceText>(step).apply(token, space);
  }
  return token;
}

std::vector<std::string> Decoder::of_all(const Step& step, std::vector<std::string> tokens, MatchSpace& space) {
  const auto joined = [&] {
    std::string text;
    for (const auto& token : tokens) text += token;
    return text;
  };
  if (std::holds_alternative<ReplaceBadBytes>(step)) return {with_replacements(joined())};
  if (std::holds_alternative<ByteFallback>(step)) return without_byte_tokens(tokens);
  if (std::holds_alternative<Fuse>(step)) return {joined()};
  const auto* end_of_word = std::get_if<EndOfWord>(&step);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (end_of_word) {
      const bool last = i + 1 == tokens.size();
      if (!end_of_word->suffix.empty()) tokens[i] = replaced(tokens[i], end_of_word->suffix, last ? "" : " ");
    } else {
      tokens[i] = of_token(step, std::move(tokens[i]), i == 0 ? Place::First : Place::Later, space);
    }
  }
  return tokens;
}

std::string Decoder::prepared(std::string token, Place place, MatchSpace& space) const {
  for (std::size_t i = 0; i < token_by_token_; ++i) token = of_token(steps_[i], std::move(token), place, space);
  return token;
}

std::string Decoder::join(const std::vector<std::string_view>& prepared) const {
  auto next = token_by_token_;
  std::string text;
  if (next < steps_.size() && std::holds_alternative<ByteFallback>(steps_[next])) {
    const bool fused = next + 1 == steps_.size() || std::holds_alternative<Fuse>(steps_[next + 1]);
    if (!fused) return join_slowly(prepared, next);
    text = joined_with_byte_tokens(prepared);
    next += 2;
  } else {
    const bool joins = next == steps_.size() || std::holds_alternative<ReplaceBadBytes>(steps_[next]) ||
                       std::holds_alternative<Fuse>(steps_[next]);
    if (!joins) return join_slowly(prepared, next);
    for (std::size_t i = 0; i < prepared.size(); ++i) {
      if (none_ && i > 0) text += ' ';
      text += prepared[i];
    }
    if (next < steps_.size() && std::holds_alternative<ReplaceBadBytes>(steps_[next]) && first_invalid_utf8(text))
      text = with_replacements(text);
    ++next;
  }
  if (next >= steps_.size()) return text;
  return join_slowly({text}, next);
}

std::string Decoder::join_slowly(const std::vector<std::string_view>& prepared, std::size_t from) const {
  std::vector<std::string> tokens(prepared.begin(), prepared.end());
  MatchSpace space;
  for (; from < steps_.size(); ++from) tokens = of_all(steps_[from], std::move(tokens), space);
  std::string text;
  for (const auto& token : tokens) text += token;
  return text;
}

}  // namespace hansa::hf
