// Texts to ids and back, behind HfTokenizer: TokenPipeline (tokenizer.json; vocab.json with merges.txt) and SentencePieces
// (tokenizer.model) are the kinds. Immutable after construction: any thread. Throws Error.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hf/post_processor.hpp"

namespace hansa::hf {

class TextCoder {
 public:
  virtual ~TextCoder() = default;
  // Of valid UTF-8, shorter than 2 GB.
  virtual std::vector<std::int64_t> encode(std::string_view utf8) const = 0;
  // Special tokens and ids without a token are skipped.
  virtual std::string decode(const std::vector<std::int64_t>& ids) const = 0;
  virtual std::int64_t size() const = 0;                                       // one more than the largest id
  virtual std::optional<std::int64_t> find(std::string_view token) const = 0;  // added tokens first
  virtual std::string written(std::int64_t id) const = 0;                      // empty: no such id
  virtual const AroundText& around() const = 0;
};

}  // namespace hansa::hf
