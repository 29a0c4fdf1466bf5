// The normalizer part of tokenizer.json: all that the reference knows, by type. Immutable: any thread, one MatchSpace per
// thread. Throws Error naming what it does not support.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "hf/split_pattern.hpp"

namespace hansa::hf {

struct Normalized {
  std::string text;
  // The first character of the original text was left out: what is prepended to a text's beginning only is then not.
  bool front_lost = false;
};

class Normalizer {
 public:
  explicit Normalizer(const nlohmann::json& part);
  ~Normalizer();
  bool changes_nothing() const { return steps_.empty(); }
  Normalized apply(std::string_view text, MatchSpace& space) const;

  struct Step {
    virtual ~Step() = default;
    virtual void apply(Normalized& now, MatchSpace& space) const = 0;
  };

 private:
  void add(const nlohmann::json& part);
  std::vector<std::unique_ptr<Step>> steps_;
};

struct ReplaceText {  // also a decoder
  SplitPattern pattern;
  std::string content;
  explicit ReplaceText(const nlohmann::json& part, const std::string& where);
  std::string apply(std::string_view text, MatchSpace& space) const;
};

// {"String": "..."} or {"Regex": "..."}
SplitPattern pattern_of(const nlohmann::json& part, const std::string& where);

}  // namespace hansa::hf
