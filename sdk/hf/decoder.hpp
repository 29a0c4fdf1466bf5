// The decoder part of tokenizer.json: tokens to bytes of text. ByteLevel, ByteFallback, Fuse, Strip, Replace, sequences of
// them, or none. Immutable: any thread.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "hf/normalizer.hpp"

namespace hansa::hf {

class Decoder {
 public:
  explicit Decoder(const nlohmann::json& part);  // throws Error naming what it does not support
  std::string run(std::vector<std::string> tokens) const;

 private:
  struct ByteLevel {};
  struct ByteFallback {};
  struct Fuse {};
  struct Strip {
    std::string content;              // one character
    std::size_t start = 0, stop = 0;  // how many at most
  };
  using Step = std::variant<ByteLevel, ByteFallback, Fuse, Strip, ReplaceText>;

  void add(const nlohmann::json& part);
  static std::vector<std::string> apply(const Step& step, std::vector<std::string> tokens, MatchSpace& space);
  std::vector<Step> steps_;
  bool none_ = false;  // tokens are joined by spaces
};

}  // namespace hansa::hf
