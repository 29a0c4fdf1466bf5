#include "hf/pre_tokenizer.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/byte_alphabet.hpp"
#include "hf/json_file.hpp"
#include "hf/normalizer.hpp"

namespace hansa::hf {
namespace {

const std::string kPreTokenizer = "tokenizer.json: pre_tokenizer";

// What ByteLevel splits by with use_regex: GPT-2's expression.
constexpr std::string_view kGpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::uint32_t character_of(const nlohmann::json& part, const char* key) {
  const auto text = text_of(part, key, kPreTokenizer);
  if (text.empty() || sequence_length(text[0]) != text.size())
    throw Error(fmt::format("{}: {} is '{}', not one character", kPreTokenizer, key, text));
  std::size_t at = 0;
  return next_code_point(text, at);
}

struct Part {
  TextRange range;
  bool matched = false;
};

// Matches and what lies between them, covering the whole text.
std::vector<Part> alternating(std::string_view text, const std::vector<TextRange>& found, bool invert) {
  std::vector<Part> parts;
  std::size_t done = 0;
  for (const auto match : found) {
    if (match.begin > done) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, invert});
  return parts;
}

}  // namespace

PreTokenizer::PreTokenizer(const nlohmann::json& part) {
  if (!part.is_null()) add(part);
  if (!steps_.empty() && std::holds_alternative<MapBytes>(steps_.back())) {
    steps_.pop_back();
    leaves_bytes_ = true;
  }
}

void PreTokenizer::add(const nlohmann::json& part) {
  const auto type =
      part.is_object() ? text_of(part, "type", kPreTokenizer) : throw Error(kPreTokenizer + " is not an object");
  if (type == "Sequence") {
    allow_only(part, {"type", "pretokenizers"}, kPreTokenizer);
    for (const auto& member : part.at("pretokenizers")) add(member);
  } else if (type == "ByteLevel") {
    add_byte_level(part);
  } else if (type == "Split") {
    add_split(part);
  } else if (type == "Digits") {
    allow_only(part, {"type", "individual_digits"}, kPreTokenizer);
    const bool individual = flag_of(part, "individual_digits", false, kPreTokenizer);
    add_set(digits_of_pre_tokenizer(), individual ? Behavior::Isolated : Behavior::Contiguous);
  } else if (type == "Metaspace") {
    add_metaspace(part);
  } else if (type == "BertPreTokenizer") {
    allow_only(part, {"type"}, kPreTokenizer);
    add_set(white_space(), Behavior::Removed);
    add_set(punctuation(), Behavior::Isolated);
  } else if (type == "WhitespaceSplit") {
    allow_only(part, {"type"}, kPreTokenizer);
    add_set(white_space(), Behavior::Removed);
  } else if (type == "Whitespace") {
    allow_only(part, {"type"}, kPreTokenizer);
    auto neither = CodePointSet(word_of_pre_tokenizer()).add(white_space()).complement();
    const std::vector<ExpressionItem> words = {word_of_pre_tokenizer(), "+", "|", std::move(neither), "+"};
    steps_.emplace_back(Split{SplitPattern::of_items(words, type), Behavior::Removed, true});
  } else if (type == "Punctuation") {
    allow_only(part, {"type", "behavior"}, kPreTokenizer);
    add_set(punctuation(),
            is_absent(part, "behavior") ? Behavior::Isolated : behavior_of(text_of(part, "behavior", kPreTokenizer)));
  } else if (type == "CharDelimiterSplit") {
    allow_only(part, {"type", "delimiter"}, kPreTokenizer);
    add_set(CodePointSet::of(character_of(part, "delimiter")), Behavior::Removed);
  } else if (type == "FixedLength") {
    allow_only(part, {"type", "length"}, kPreTokenizer);
    const auto& length = is_absent(part, "length") ? nlohmann::json(5u) : part.at("length");
    if (!length.is_number_unsigned() || length == 0)
      throw Error(fmt::format("{}: length = {} is no number above 0", kPreTokenizer, length.dump()));
    steps_.emplace_back(FixedLength{length.get<std::size_t>()});
  } else {
    throw Error(fmt::format(
        "{}: type '{}' is not supported; supported: BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, "
        "FixedLength, Metaspace, Punctuation, Sequence, Split, Whitespace, WhitespaceSplit",
        kPreTokenizer, type));
  }
}

void PreTokenizer::add_set(const CodePointSet& set, Behavior behavior) {
  steps_.emplace_back(Split{SplitPattern::of_set(set), behavior});
}

// Older files say add_prefix_space where newer ones have prepend_scheme; str_rep is a form of `replacement` that goes unread.
void PreTokenizer::add_metaspace(const nlohmann::json& part) {
  allow_only(part, {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}, kPreTokenizer);
  Metaspace metaspace;
  append_utf8(metaspace.mark, character_of(part, "replacement"));
  const auto scheme = is_absent(part, "prepend_scheme") ? "always" : text_of(part, "prepend_scheme", kPreTokenizer);
  using Prepend = Metaspace::Prepend;
  if (scheme == "first") {
    metaspace.prepend = Prepend::First;
  } else if (scheme == "never") {
    metaspace.prepend = Prepend::Never;
  } else if (scheme != "always") {
    throw Error(fmt::format("{}: prepend_scheme = '{}' is not supported; supported: always, first, never",
                            kPreTokenizer, scheme));
  }
  if (!flag_of(part, "add_prefix_space", true, kPreTokenizer)) {
    // The reference takes a missing scheme for "always", and then refuses the file for contradicting itself.
    if (metaspace.prepend != Prepend::Never)
      throw Error(kPreTokenizer + ": add_prefix_space = false contradicts prepend_scheme, which has to be \"never\"");
  }
  const auto mark = metaspace.mark;
  steps_.emplace_back(std::move(metaspace));
  if (flag_of(part, "split", true, kPreTokenizer))
    steps_.emplace_back(Split{SplitPattern::of_text(mark), Behavior::MergedWithNext});
}

void PreTokenizer::add_byte_level(const nlohmann::json& part) {
  allow_only(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"},
             kPreTokenizer);  // offsets are not ours to give
  if (flag_of(part, "add_prefix_space", true, kPreTokenizer)) steps_.emplace_back(PrefixSpace{});
  if (flag_of(part, "use_regex", true, kPreTokenizer))
    steps_.emplace_back(Split{SplitPattern::of_expression(kGpt2Words)});
  steps_.emplace_back(MapBytes{});
}

void PreTokenizer::add_split(const nlohmann::json& part) {
  allow_only(part, {"type", "pattern", "behavior", "invert"}, kPreTokenizer);
  if (is_absent(part, "pattern")) throw Error(kPreTokenizer + ": Split has no pattern");
  steps_.emplace_back(Split{pattern_of(part.at("pattern"), kPreTokenizer),
                            behavior_of(text_of(part, "behavior", kPreTokenizer)),
                            flag_of(part, "invert", false, kPreTokenizer)});
}

PreTokenizer::Behavior PreTokenizer::behavior_of(const std::string& name) {
  if (name == "Isolated") return Behavior::Isolated;
  if (name == "Removed") return Behavior::Removed;
  if (name == "MergedWithPrevious") return Behavior::MergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::MergedWithNext;
  if (name == "Contiguous") return Behavior::Contiguous;
  throw Error(
      fmt::format("{}: behavior '{}' is not supported; supported: Isolated, Removed, MergedWithPrevious, "
                  "MergedWithNext, Contiguous",
                  kPreTokenizer, name));
}

void PreTokenizer::cut(const Split& split, std::string_view text, const std::vector<TextRange>& found,
                       std::vector<TextRange>& cuts) {
  cuts.clear();
  auto parts = alternating(text, found, split.invert);
  const bool backwards = split.behavior == Behavior::MergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  bool matched_before = false;
  for (const auto& part : parts) {
    bool joins = false;
    switch (split.behavior) {
      case Behavior::Isolated: break;
      case Behavior::Removed:
        if (part.matched) continue;
        break;
      case Behavior::MergedWithPrevious:
      case Behavior::MergedWithNext: joins = part.matched && !matched_before; break;
      case Behavior::Contiguous: joins = part.matched == matched_before; break;
    }
    matched_before = part.matched;
    if (!joins || cuts.empty()) {
      cuts.push_back(part.range);
    } else if (backwards) {
      cuts.back().begin = part.range.begin;
    } else {
      cuts.back().end = part.range.end;
    }
  }
  if (backwards) std::reverse(cuts.begin(), cuts.end());
}

void PreTokenizer::cut_evenly(std::size_t length, std::string_view text, std::vector<TextRange>& parts) {
  parts.clear();
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    for (std::size_t i = 0; i < length && at < text.size(); ++i) at += sequence_length(text[at]);
    parts.push_back({begin, at});
  }
}

void PreTokenizer::run(std::string_view text, Place place, PieceSpace& space,
                       const std::function<void(std::string_view)>& piece) const {
  while (space.levels.size() < steps_.size()) space.levels.emplace_back();
  run_from(0, text, place, space, piece);
}

void PreTokenizer::run_from(std::size_t step, std::string_view text, Place place, PieceSpace& space,
                            const std::function<void(std::string_view)>& piece) const {
  if (text.empty()) return;
  if (step == steps_.size()) return piece(text);
  auto& level = space.levels[step];
  const auto go_on_with_parts = [&] {
    for (const auto part : level.parts) {
      run_from(step + 1, text.substr(part.begin, part.end - part.begin), part.begin == 0 ? place : Place::Later, space,
               piece);
    }
  };
  if (const auto* split = std::get_if<Split>(&steps_[step])) {
    split->pattern.find(text, space.match, level.found);
    cut(*split, text, level.found, level.parts);
    return go_on_with_parts();
  }
  if (const auto* fixed = std::get_if<FixedLength>(&steps_[step])) {
    cut_evenly(fixed->length, text, level.parts);
    return go_on_with_parts();
  }
  level.text.clear();
  if (const auto* metaspace = std::get_if<Metaspace>(&steps_[step])) {
    const auto& mark = metaspace->mark;
    const bool wanted = metaspace->prepend == Metaspace::Prepend::Always ||
                        (metaspace->prepend == Metaspace::Prepend::First && place == Place::Beginning);
    if (wanted && text.front() != ' ' && !text.starts_with(mark)) level.text = mark;
    for (const char c : text) {
      if (c == ' ') {
        level.text += mark;
      } else {
        level.text += c;
      }
    }
  } else if (std::holds_alternative<PrefixSpace>(steps_[step])) {
    if (text.front() == ' ') return run_from(step + 1, text, place, space, piece);
    level.text.assign(" ").append(text);
  } else {
    append_as_characters(level.text, text);
  }
  run_from(step + 1, level.text, place, space, piece);
}

}  // namespace hansa::hf
