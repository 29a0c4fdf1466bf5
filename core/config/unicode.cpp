#include "config/unicode.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>

#include "config/diagnostic.hpp"

namespace hansa::config {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

// Length of the well-formed sequence at the front, 0 when there is none (overlong forms and surrogates are refused).
std::size_t sequence_length(std::string_view text, char32_t& character) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto lead = byte(0);
  if (lead < 0x80) {
    character = lead;
    return 1;
  }
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (length == 0 || lead > 0xF4 || text.size() < length) return 0;
  character = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    character = character << 6 | (byte(i) & 0x3Fu);
  }
  constexpr std::array<char32_t, 5> kLeast{0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = character >= 0xD800 && character <= 0xDFFF;
  return character < kLeast[length] || surrogate || character > 0x10FFFF ? 0 : length;
}

struct Range {
  char32_t first, last;
};
template <std::size_t N>
bool within(const Range (&ranges)[N], char32_t c) {
  return std::any_of(std::begin(ranges), std::end(ranges), [c](Range r) { return c >= r.first && c <= r.last; });
}

}  // namespace

char32_t take_character(std::string_view& text) {
  char32_t character = kReplacement;
  const auto length = sequence_length(text, character);
  text.remove_prefix(length == 0 ? 1 : length);
  return length == 0 ? kReplacement : character;
}

std::size_t first_invalid_utf8(std::string_view text) {
  const auto whole = text.size();
  while (!text.empty()) {
    char32_t ignored = 0;
    const auto length = sequence_length(text, ignored);
    if (length == 0) return whole - text.size();
    text.remove_prefix(length);
  }
  return std::string_view::npos;
}

int columns_of(char32_t c) {
  // The blocks that matter for text in a config file (Unicode's East Asian Width and combining classes).
  static constexpr Range kNone[] = {{0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x064B, 0x065F},
                                    {0x093C, 0x093C}, {0x0941, 0x0948}, {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF},
                                    {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
  static constexpr Range kTwo[] = {{0x1100, 0x115F},  {0x2E80, 0x303E},   {0x3041, 0x4DBF},   {0x4E00, 0xA4CF},
                                   {0xAC00, 0xD7A3},  {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},
                                   {0xFFE0, 0xFFE6},  {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1FAFF},
                                   {0x20000, 0x3FFFD}};
  if (within(kNone, c)) return 0;
  return within(kTwo, c) ? 2 : 1;
}

void append_utf8(std::string& to, char32_t c) {
  if (c < 0x80) {
    to += static_cast<char>(c);
    return;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr std::array<unsigned, 4> kLead{0, 0xC0, 0xE0, 0xF0};
  to += static_cast<char>(kLead[static_cast<std::size_t>(more)] | c >> (6 * more));
  for (int i = more - 1; i >= 0; --i) to += static_cast<char>(0x80 | (c >> (6 * i) & 0x3F));
}

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto c = take_character(text);
    if (c < 0x20 || (c >= 0x7F && c < 0xA0)) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned>(c));
      out += escape;
    } else {
      append_utf8(out, c);
    }
  }
  return out;
}

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (; !text.empty(); ++count) take_character(text);
  return count;
}

}  // namespace hansa::config
