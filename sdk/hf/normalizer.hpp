// The normalizer part of tokenizer.json: NFC, Prepend, Replace, sequences of them, or none. Immutable: any thread.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "hf/split_pattern.hpp"

namespace hansa::hf {

class NfcForm {  // as the reference has it: with the Unicode 9 tables
 public:
  NfcForm();
  ~NfcForm();
  NfcForm(NfcForm&&) noexcept;
  NfcForm& operator=(NfcForm&&) noexcept;
  std::string apply(std::string_view text) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};
struct PrependText {
  std::string text;
};
struct ReplaceText {  // also a decoder
  SplitPattern pattern;
  std::string content;
  std::string apply(std::string_view text, MatchSpace& space) const;
};

class Normalizer {
 public:
  explicit Normalizer(const nlohmann::json& part);  // throws Error naming what it does not support
  bool changes_nothing() const { return steps_.empty(); }
  std::string apply(std::string_view text, MatchSpace& space) const;

 private:
  void add(const nlohmann::json& part);
  std::vector<std::variant<NfcForm, PrependText, ReplaceText>> steps_;
};

// {"String": "..."} or {"Regex": "..."}
SplitPattern pattern_of(const nlohmann::json& part, const std::string& where);

}  // namespace hansa::hf
