// Text to ids and back. The host reads it from the checkpoint's directory and lends it to data sources. Immutable after
// construction: any thread.
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hansa {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::vector<std::int64_t> encode(
      std::string_view utf8) const = 0;  // without the post-processor's special tokens
  virtual std::string decode(const std::vector<std::int64_t>& ids) const = 0;  // special tokens are skipped
  virtual std::int64_t size() const = 0;                                       // one more than the largest id
  virtual std::optional<std::int64_t> begin_of_text() const = 0;
  virtual std::optional<std::int64_t> end_of_text() const = 0;

  // For encoders: with what the checkpoint's post-processor puts around a text, "[CLS] text [SEP]" or "<s> text </s>".
  // At most `most` ids, those around the text included: where it is longer, the text's end is left out. Same as encode, cut
  // to `most`, when the checkpoint names nothing to put around.
  virtual std::vector<std::int64_t> encode_with_special(
      std::string_view utf8, std::int64_t most = std::numeric_limits<std::int64_t>::max()) const {
    auto ids = encode(utf8);
    if (most < static_cast<std::int64_t>(ids.size())) ids.resize(static_cast<std::size_t>(most < 0 ? 0 : most));
    return ids;
  }
  // The id of a token by its text as it stands in the vocabulary, "<|im_start|>"; nothing when there is none.
  virtual std::optional<std::int64_t> id_of(std::string_view /*token*/) const { return std::nullopt; }
  // What the checkpoint fills rows up with, if it names a token for that. Masks, not this id, say what is padding.
  virtual std::optional<std::int64_t> padding() const { return std::nullopt; }
};

}  // namespace hansa
