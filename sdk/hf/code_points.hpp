// Sets of Unicode code points, and the named ones (\p{L}, \s ...) as the reference tokenizer library has them, from tables
// that generate_unicode_tables.py wrote. Also UTF-8 in and out. Values and pure functions: any thread.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hansa::hf {

inline constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

struct CodePointRange {  // both ends belong to it
  std::uint32_t first = 0, last = 0;
  bool operator==(const CodePointRange&) const = default;
};

class CodePointSet {
 public:
  CodePointSet() = default;
  explicit CodePointSet(std::span<const CodePointRange> ranges);
  static CodePointSet of(std::uint32_t code_point) { return of(code_point, code_point); }
  static CodePointSet of(std::uint32_t first, std::uint32_t last);
  CodePointSet& add(const CodePointSet& other);
  CodePointSet complement() const;
  bool contains(std::uint32_t code_point) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<CodePointRange>& ranges() const { return ranges_; }  // ascending, apart from each other

 private:
  void normalise();
  std::vector<CodePointRange> ranges_;
};

// The same in constant time, for what is asked about every character of a text.
class CodePointTable {
 public:
  explicit CodePointTable(const CodePointSet& set);
  bool contains(std::uint32_t code_point) const {
    return blocks_[block_of_[code_point >> 8]][(code_point >> 6) & 3] >> (code_point & 63) & 1;
  }

 private:
  std::array<std::uint16_t, ((kLastCodePoint + 1) >> 8)> block_of_{};
  std::vector<std::array<std::uint64_t, 4>> blocks_;
};

// "L", "Lu", "Han" ...: what stands in \p{...}. Nothing: a name that we have no table for.
std::optional<CodePointSet> property(std::string_view name);
const CodePointSet& space_class();              // \s
const CodePointSet& word_class();               // \w
const CodePointSet& digits_of_pre_tokenizer();  // the pre-tokenizer Digits
const CodePointSet& space_beside_added_token();
const CodePointSet& word_beside_added_token();
const CodePointSet& white_space();                                  // of the pre-tokenizers and of Strip
const CodePointSet& punctuation();                                  // of Punctuation and BertPreTokenizer
const CodePointSet& word_of_pre_tokenizer();                        // \w of Whitespace
const CodePointSet& removed_by_bert();                              // clean_text: left out
const CodePointSet& space_of_bert();                                // clean_text: becomes a space
const CodePointSet& ideographs_of_bert();                           // handle_chinese_chars
const CodePointSet& marks_of_bert();                                // strip_accents, after decomposing
const CodePointSet& combining_marks();                              // StripAccents
const CodePointSet& joins_cluster_before();                         // extends a grapheme cluster: marks, joiners
const CodePointSet& joins_cluster_after();                          // prepended to one
void append_lower_case(std::string& to, std::uint32_t code_point);  // whatever stands around it

// Where the text stops being UTF-8 (no surrogates, no overlong forms); nothing when all of it is.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);
// Decodes the code point at `position`, which is moved behind it. The text is valid UTF-8.
std::uint32_t next_code_point(std::string_view text, std::size_t& position);
std::uint32_t last_code_point(std::string_view text);  // of a valid text that is not empty
std::size_t sequence_length(char lead);                // bytes of the code point that starts with this byte
void append_utf8(std::string& to, std::uint32_t code_point);
// Replaces each maximal part of a wrong sequence by U+FFFD (Unicode 15, table 3-8).
std::string with_replacements(std::string_view bytes);

}  // namespace hansa::hf
