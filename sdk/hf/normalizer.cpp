#include "hf/normalizer.hpp"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

const std::string kWhere = "tokenizer.json: normalizer";

void require(UErrorCode status) {
  if (U_FAILURE(status)) throw Error(fmt::format("ICU cannot normalise to NFC: {}", u_errorName(status)));
}

}  // namespace

struct NfcForm::State {
  icu::UnicodeSet known;
  std::unique_ptr<icu::FilteredNormalizer2> normalizer;
};

// The reference's tables are those of Unicode 9: later characters are inert to it.
NfcForm::NfcForm() : state_(std::make_unique<State>()) {
  UErrorCode status = U_ZERO_ERROR;
  state_->known.applyPattern(icu::UnicodeString::fromUTF8("[:age=9.0:]"), status);
  require(status);
  state_->known.freeze();
  const auto* nfc = icu::Normalizer2::getNFCInstance(status);
  require(status);
  state_->normalizer = std::make_unique<icu::FilteredNormalizer2>(*nfc, state_->known);
}
NfcForm::~NfcForm() = default;
NfcForm::NfcForm(NfcForm&&) noexcept = default;
NfcForm& NfcForm::operator=(NfcForm&&) noexcept = default;

std::string NfcForm::apply(std::string_view text) const {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (ascii) return std::string(text);
  std::string out;
  out.reserve(text.size());
  icu::StringByteSink<std::string> sink(&out);
  UErrorCode status = U_ZERO_ERROR;
  state_->normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink,
                                    nullptr, status);
  require(status);
  return out;
}

std::string ReplaceText::apply(std::string_view text, MatchSpace& space) const {
  std::vector<TextRange> found;
  pattern.find(text, space, found);
  std::string out;
  std::size_t done = 0;
  for (const auto range : found) {
    out += text.substr(done, range.begin - done);
    out += content;
    done = range.end;
  }
  out += text.substr(done);
  return out;
}

SplitPattern pattern_of(const nlohmann::json& part, const std::string& where) {
  allow_only(part, {"String", "Regex"}, where + ": pattern");
  if (part.size() != 1) throw Error(where + ": pattern has to be one of String and Regex");
  try {
    if (part.contains("String")) return SplitPattern::of_text(text_of(part, "String", where));
    return SplitPattern::of_expression(text_of(part, "Regex", where));
  } catch (const Error& problem) {
    throw Error(fmt::format("{}: {}", where, problem.what()));
  }
}

Normalizer::Normalizer(const nlohmann::json& part) {
  if (!part.is_null()) add(part);
}

void Normalizer::add(const nlohmann::json& part) {
  const auto type = part.is_object() ? text_of(part, "type", kWhere) : throw Error(kWhere + " is not an object");
  if (type == "Sequence") {
    allow_only(part, {"type", "normalizers"}, kWhere);
    for (const auto& member : part.at("normalizers")) add(member);
  } else if (type == "NFC") {
    allow_only(part, {"type"}, kWhere);
    steps_.emplace_back(NfcForm());
  } else if (type == "Prepend") {
    allow_only(part, {"type", "prepend"}, kWhere);
    steps_.emplace_back(PrependText{text_of(part, "prepend", kWhere)});
  } else if (type == "Replace") {
    allow_only(part, {"type", "pattern", "content"}, kWhere);
    if (is_absent(part, "pattern")) throw Error(kWhere + ": pattern is missing");
    steps_.emplace_back(ReplaceText{pattern_of(part.at("pattern"), kWhere), text_of(part, "content", kWhere)});
  } else {
    throw Error(
        fmt::format("{}: type '{}' is not supported; supported: NFC, Prepend, Replace, Sequence", kWhere, type));
  }
}

std::string Normalizer::apply(std::string_view text, MatchSpace& space) const {
  std::string now(text);
  for (const auto& step : steps_) {
    if (const auto* nfc = std::get_if<NfcForm>(&step)) {
      now = nfc->apply(now);
    } else if (const auto* prepend = std::get_if<PrependText>(&step)) {
      if (!now.empty()) now.insert(0, prepend->text);
    } else {
      now = std::get<ReplaceText>(step).apply(now, space);
    }
  }
  return now;
}

}  // namespace hansa::hf
