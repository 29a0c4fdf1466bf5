// The normaliser Precompiled: SentencePiece's table of characters and their replacements, a double array (Darts) in base64.
// Applied as the reference does: a grapheme cluster of up to five bytes is replaced as a whole by the shortest entry that it
// begins with, a longer one character by character. Immutable: any thread. Throws Error for a table that is damaged.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hansa::hf {

class Charsmap {
 public:
  explicit Charsmap(std::string_view base64);
  std::string apply(std::string_view text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view characters) const;
  std::uint32_t unit(std::size_t index) const { return index < units_.size() ? units_[index] : 0; }
  std::vector<std::uint32_t> units_;
  std::string replacements_;  // each ends with a NUL
};

}  // namespace hansa::hf
