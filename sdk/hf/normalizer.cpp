#include "hf/normalizer.hpp"

#include <algorithm>
#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/bert_text.hpp"
#include "hf/byte_alphabet.hpp"
#include "hf/charsmap.hpp"
#include "hf/json_file.hpp"
#include "hf/unicode_forms.hpp"

namespace hansa::hf {
namespace {

const std::string kNormalizer = "tokenizer.json: normalizer";
using Step = Normalizer::Step;

class Form : public Step {
 public:
  explicit Form(UnicodeForm::Kind kind) : form_(kind) {}
  void apply(Normalized& now, MatchSpace&) const override { now.text = form_.apply(std::move(now.text)); }

 private:
  UnicodeForm form_;
};

class Prepend : public Step {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  void apply(Normalized& now, MatchSpace&) const override {
    if (!now.text.empty()) now.text.insert(0, text_);
  }

 private:
  std::string text_;
};

class Replace : public Step {
 public:
  explicit Replace(const nlohmann::json& part) : replace_(part, kNormalizer) {}
  void apply(Normalized& now, MatchSpace& space) const override {
    if (replace_.content.empty() && !now.front_lost) {
      std::vector<TextRange> found;
      replace_.pattern.find(now.text, space, found);
      now.front_lost = !found.empty() && found.front().begin == 0 && found.front().end > 0;
    }
    now.text = replace_.apply(now.text, space);
  }

 private:
  ReplaceText replace_;
};

class Bert : public Step {
 public:
  explicit Bert(BertText::Options options) : text_(options) {}
  void apply(Normalized& now, MatchSpace&) const override {
    now.text = text_.apply(std::move(now.text), now.front_lost);
  }

 private:
  BertText text_;
};

class Precompiled : public Step {
 public:
  explicit Precompiled(std::string_view base64) : map_(base64) {}
  void apply(Normalized& now, MatchSpace&) const override { now.text = map_.apply(now.text); }

 private:
  Charsmap map_;
};

class Strip : public Step {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(Normalized& now, MatchSpace&) const override {
    std::string_view rest = now.text;
    while (right_ && !rest.empty() && white_space().contains(last_code_point(rest))) {
      do rest.remove_suffix(1);
      while ((static_cast<unsigned char>(now.text[rest.size()]) & 0xC0) == 0x80);
    }
    std::size_t begin = 0;
    for (std::size_t next = 0; left_ && next < rest.size(); begin = next) {
      if (!white_space().contains(next_code_point(rest, next))) break;
    }
    now.front_lost = now.front_lost || begin > 0;
    now.text = std::string(rest.substr(begin));
  }

 private:
  bool left_, right_;
};

class LowerCase : public Step {
 public:
  void apply(Normalized& now, MatchSpace&) const override {
    std::string lower;
    lower.reserve(now.text.size());
    for (std::size_t at = 0; at < now.text.size();) append_lower_case(lower, next_code_point(now.text, at));
    now.text = std::move(lower);
  }
};

// Leaves characters out.
class Without : public Step {
 public:
  explicit Without(const CodePointSet& set) : set_(set) {}
  void apply(Normalized& now, MatchSpace&) const override {
    std::string kept;
    kept.reserve(now.text.size());
    for (std::size_t at = 0; at < now.text.size();) {
      const auto begin = at;
      if (!set_.contains(next_code_point(now.text, at))) {
        kept.append(now.text, begin, at - begin);
      } else if (begin == 0) {
        now.front_lost = true;
      }
    }
    now.text = std::move(kept);
  }

 private:
  CodePointTable set_;
};

class AsSpace : public Step {
 public:
  explicit AsSpace(const CodePointSet& set) : set_(set) {}
  void apply(Normalized& now, MatchSpace&) const override {
    std::string out;
    out.reserve(now.text.size());
    for (std::size_t at = 0; at < now.text.size();) {
      const auto begin = at;
      if (set_.contains(next_code_point(now.text, at))) {
        out.push_back(' ');
      } else {
        out.append(now.text, begin, at - begin);
      }
    }
    now.text = std::move(out);
  }

 private:
  CodePointTable set_;
};

class AsByteCharacters : public Step {
 public:
  void apply(Normalized& now, MatchSpace&) const override {
    std::string out;
    append_as_characters(out, now.text);
    now.text = std::move(out);
  }
};

// Nmt: control characters go, other unusual space becomes a space (SentencePiece's rules for translation).
constexpr CodePointRange kNmtRemoved[] = {{0x1, 0x8},   {0xB, 0xB},   {0xE, 0x1F},
                                          {0x7F, 0x7F}, {0x8F, 0x8F}, {0x9F, 0x9F}};
constexpr CodePointRange kNmtSpace[] = {{0x9, 0xA},       {0xC, 0xD},       {0x1680, 0x1680}, {0x200B, 0x200F},
                                        {0x2028, 0x2029}, {0x2581, 0x2581}, {0xFEFF, 0xFEFF}, {0xFFFD, 0xFFFD}};

BertText::Options bert_options(const nlohmann::json& part) {
  allow_only(part, {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}, kNormalizer);
  BertText::Options options;
  options.clean = flag_of(part, "clean_text", true, kNormalizer);
  options.ideographs = flag_of(part, "handle_chinese_chars", true, kNormalizer);
  options.lower_case = flag_of(part, "lowercase", true, kNormalizer);
  options.strip_accents = flag_of(part, "strip_accents", options.lower_case, kNormalizer);
  return options;
}

}  // namespace

ReplaceText::ReplaceText(const nlohmann::json& part, const std::string& where)
    : pattern((allow_only(part, {"type", "pattern", "content"}, where),
               is_absent(part, "pattern") ? throw Error(where + ": pattern is missing")
                                          : pattern_of(part.at("pattern"), where))),
      content(text_of(part, "content", where)) {}

std::string ReplaceText::apply(std::string_view text, MatchSpace& space) const {
  std::vector<TextRange> found;
  pattern.find(text, space, found);
  std::string out;
  out.reserve(text.size() + found.size() * content.size());
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
Normalizer::~Normalizer() = default;

void Normalizer::add(const nlohmann::json& part) {
  const auto type =
      part.is_object() ? text_of(part, "type", kNormalizer) : throw Error(kNormalizer + " is not an object");
  const auto plain = [&]() { allow_only(part, {"type"}, kNormalizer); };
  const auto form = [&](UnicodeForm::Kind kind) {
    plain();
    steps_.push_back(std::make_unique<Form>(kind));
  };
  if (type == "Sequence") {
    allow_only(part, {"type", "normalizers"}, kNormalizer);
    for (const auto& member : part.at("normalizers")) add(member);
  } else if (type == "NFC") {
    form(UnicodeForm::Kind::Nfc);
  } else if (type == "NFD") {
    form(UnicodeForm::Kind::Nfd);
  } else if (type == "NFKC") {
    form(UnicodeForm::Kind::Nfkc);
  } else if (type == "NFKD") {
    form(UnicodeForm::Kind::Nfkd);
  } else if (type == "Prepend") {
    allow_only(part, {"type", "prepend"}, kNormalizer);
    steps_.push_back(std::make_unique<Prepend>(text_of(part, "prepend", kNormalizer)));
  } else if (type == "Replace") {
    steps_.push_back(std::make_unique<Replace>(part));
  } else if (type == "BertNormalizer") {
    steps_.push_back(std::make_unique<Bert>(bert_options(part)));
  } else if (type == "Precompiled") {
    allow_only(part, {"type", "precompiled_charsmap"}, kNormalizer);
    const auto map = text_of(part, "precompiled_charsmap", kNormalizer);
    steps_.push_back(std::make_unique<Precompiled>(map));
  } else if (type == "Strip") {
    allow_only(part, {"type", "strip_left", "strip_right"}, kNormalizer);
    steps_.push_back(std::make_unique<Strip>(flag_of(part, "strip_left", true, kNormalizer),
                                             flag_of(part, "strip_right", true, kNormalizer)));
  } else if (type == "Lowercase") {
    plain();
    steps_.push_back(std::make_unique<LowerCase>());
  } else if (type == "StripAccents") {
    plain();
    steps_.push_back(std::make_unique<Without>(combining_marks()));
  } else if (type == "Nmt") {
    plain();
    steps_.push_back(std::make_unique<Without>(CodePointSet(kNmtRemoved)));
    steps_.push_back(std::make_unique<AsSpace>(CodePointSet(kNmtSpace)));
  } else if (type == "ByteLevel") {
    plain();
    steps_.push_back(std::make_unique<AsByteCharacters>());
  } else {
    throw Error(
        fmt::format("{}: type '{}' is not supported; supported: BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, "
                    "NFKD, Nmt, Precompiled, Prepend, Replace, Sequence, Strip, StripAccents",
                    kNormalizer, type));
  }
}

Normalized Normalizer::apply(std::string_view text, MatchSpace& space) const {
  Normalized now{std::string(text)};
  for (const auto& step : steps_) step->apply(now, space);
  return now;
}

}  // namespace hansa::hf
