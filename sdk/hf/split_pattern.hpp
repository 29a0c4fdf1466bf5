// Finds where a pre-tokenizer cuts. Every set of code points in an expression is known from tables, so code points that no
// set tells apart are one symbol: a text becomes one byte a code point, and PCRE2 (with its JIT) matches bytes. So the
// Unicode version that PCRE2 knows does not matter, and classes are bitmaps.
//
// SplitPattern is immutable: any thread, one MatchSpace per thread. Throws Error for what is not supported, and when a text
// exhausts the matcher's stack.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hf/code_points.hpp"
#include "hf/expression.hpp"

namespace hansa::hf {

struct TextRange {  // bytes
  std::size_t begin = 0, end = 0;
};

class MatchSpace {  // what a match needs while it runs; reused
 public:
  MatchSpace();
  ~MatchSpace();
  MatchSpace(MatchSpace&&) noexcept;
  MatchSpace& operator=(MatchSpace&&) noexcept;

 private:
  friend class SplitPattern;
  struct State;
  std::unique_ptr<State> state_;
};

class SplitPattern {
 public:
  static SplitPattern of_expression(std::string_view expression);
  static SplitPattern of_text(std::string_view literal);
  static SplitPattern of_set(const CodePointSet& set);  // each of its code points by itself
  static SplitPattern of_items(std::vector<ExpressionItem> items, std::string_view name);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  // Matches of a valid UTF-8 text from left to right, in bytes. `found` is cleared first.
  void find(std::string_view text, MatchSpace& space, std::vector<TextRange>& found) const;

 private:
  SplitPattern() = default;
  explicit SplitPattern(std::vector<ExpressionItem> items, std::string_view name);
  void assign_symbols(const std::vector<ExpressionItem>& items);
  std::string bytes_class(const CodePointSet& set) const;
  unsigned char symbol_of(std::uint32_t code_point) const {
    return blocks_[block_of_[code_point >> 8]][code_point & 0xFF];
  }
  void compile(const std::string& pattern);
  void find_symbols(std::string_view symbols, MatchSpace& space, std::vector<TextRange>& found) const;

  struct Code;
  // A text or a set needs no expression.
  std::string literal_;
  std::unique_ptr<CodePointTable> set_;

  std::string name_;                       // for messages
  std::vector<std::uint32_t> example_of_;  // symbol - 128: a code point that it stands for
  std::vector<std::uint16_t> block_of_;    // code point / 256 -> index of its block
  std::vector<std::array<unsigned char, 256>> blocks_;
  std::unique_ptr<Code> code_;
};

}  // namespace hansa::hf
