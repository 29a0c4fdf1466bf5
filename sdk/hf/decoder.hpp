// The decoder part of tokenizer.json: tokens to text. All that the reference knows but CTC. What a decoder does to a token
// whatever its neighbours is done once, when the tokenizer is opened: prepared() gives that form, join() the rest.
// Immutable: any thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "hf/normalizer.hpp"

namespace hansa::hf {

class Decoder {
 public:
  explicit Decoder(const nlohmann::json& part);  // throws Error naming what it does not support
  // Some decoders treat the first token of a text otherwise.
  enum class Place { First, Later };
  bool first_differs() const { return first_differs_; }
  std::string prepared(std::string token, Place place, MatchSpace& space) const;
  // Of tokens in their prepared form.
  std::string join(const std::vector<std::string_view>& prepared) const;

 private:
  struct Bytes {};  // of the byte alphabet
  struct ReplaceBadBytes {};
  struct ByteFallback {};
  struct Fuse {};
  struct Strip {
    std::string content;              // one character
    std::size_t start = 0, stop = 0;  // how many at most
  };
  struct Metaspace {
    std::string mark;
    bool prepended = true;
  };
  struct Words {  // WordPiece
    std::string prefix;
    bool clean_up = true;
  };
  struct EndOfWord {  // BPEDecoder
    std::string suffix;
  };
  using Step =
      std::variant<Bytes, ReplaceBadBytes, ByteFallback, Fuse, Strip, Metaspace, Words, EndOfWord, ReplaceText>;

  void add(const nlohmann::json& part);
  void add_token_by_token(Step step);
  static std::string of_token(const Step& step, std::string token, Place place, MatchSpace& space);
  static std::vector<std::string> of_all(const Step& step, std::vector<std::string> tokens, MatchSpace& space);
  std::string join_slowly(const std::vector<std::string_view>& prepared, std::size_t from) const;

  std::vector<Step> steps_;
  std::size_t token_by_token_ = 0;  // so many steps at the beginning need no neighbours
  bool first_differs_ = false;
  bool none_ = false;  // tokens are joined by spaces
};

}  // namespace hansa::hf
