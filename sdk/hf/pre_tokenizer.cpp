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

const std::string kWhere = "tokenizer.json: pre_tokenizer";

// What ByteLevel splits by with use_regex: GPT-2's expression.
constexpr std::string_view kGpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

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
  const auto type = part.is_object() ? text_of(part, "type", kWhere) : throw Error(kWhere + " is not an object");
  if (type == "Sequence") {
    allow_only(part, {"type", "pretokenizers"}, kWhere);
    for (const auto& member : part.at("pretokenizers")) add(member);
  } else if (type == "ByteLevel") {
    add_byte_level(part);
  } else if (type == "Split") {
    add_split(part);
  } else if (type == "Digits") {
    allow_only(part, {"type", "individual_digits"}, kWhere);
    const bool individual = flag_of(part, "individual_digits", false, kWhere);
    steps_.emplace_back(
        Split{SplitPattern::of_set(digits_of_pre_tokenizer()), individual ? Behavior::Isolated : Behavior::Contiguous});
  } else {
    throw Error(
        fmt::format("{}: type '{}' is not supported; supported: ByteLevel, Digits, Sequence, Split", kWhere, type));
  }
}

void PreTokenizer::add_byte_level(const nlohmann::json& part) {
  allow_only(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, kWhere);  // offsets are not ours to give
  if (flag_of(part, "add_prefix_space", true, kWhere)) steps_.emplace_back(PrefixSpace{});
  if (flag_of(part, "use_regex", true, kWhere)) steps_.emplace_back(Split{SplitPattern::of_expression(kGpt2Words)});
  steps_.emplace_back(MapBytes{});
}

void PreTokenizer::add_split(const nlohmann::json& part) {
  allow_only(part, {"type", "pattern", "behavior", "invert"}, kWhere);
  if (is_absent(part, "pattern")) throw Error(kWhere + ": Split has no pattern");
  steps_.emplace_back(Split{pattern_of(part.at("pattern"), kWhere), behavior_of(text_of(part, "behavior", kWhere)),
                            flag_of(part, "invert", false, kWhere)});
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
                  kWhere, name));
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

void PreTokenizer::run(std::string_view text, PieceSpace& space,
                       const std::function<void(std::string_view)>& piece) const {
  while (space.levels.size() < steps_.size()) space.levels.emplace_back();
  run_from(0, text, space, piece);
}

void PreTokenizer::run_from(std::size_t step, std::string_view text, PieceSpace& space,
                            const std::function<void(std::string_view)>& piece) const {
  if (text.empty()) return;
  if (step == steps_.size()) return piece(text);
  auto& level = space.levels[step];
  if (const auto* split = std::get_if<Split>(&steps_[step])) {
    split->pattern.find(text, space.match, level.found);
    cut(*split, text, level.found, level.parts);
    for (const auto part : level.parts)
      run_from(step + 1, text.substr(part.begin, part.end - part.begin), space, piece);
    return;
  }
  if (std::holds_alternative<PrefixSpace>(steps_[step])) {
    if (text.front() == ' ') return run_from(step + 1, text, space, piece);
    level.text.assign(" ").append(text);
  } else {
    level.text.clear();
    append_as_characters(level.text, text);
  }
  run_from(step + 1, level.text, space, piece);
}

}  // namespace hansa::hf
