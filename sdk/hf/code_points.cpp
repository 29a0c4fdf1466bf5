#include "hf/code_points.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace hansa::hf {
namespace {

#include "hf/unicode_tables.inc"

constexpr std::string_view kCategoryNames[] = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl",
                                               "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc",
                                               "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn"};
static_assert(std::size(kCategoryNames) == static_cast<std::size_t>(Gc::Cn) + 1);

// A category ("Lu") or a family of them ("L"): all whose name starts with it.
CodePointSet category(std::string_view name) {
  std::vector<CodePointRange> ranges, assigned;
  for (const auto& range : kCategories) {
    assigned.push_back({range.first, range.last});
    if (kCategoryNames[static_cast<std::size_t>(range.category)].starts_with(name)) {
      ranges.push_back({range.first, range.last});
    }
  }
  CodePointSet found(ranges);
  if (std::string_view("Cn").starts_with(name)) {
    assigned.push_back({0xD800, 0xDFFF});  // surrogates never occur in a text
    found.add(CodePointSet(assigned).complement());
  }
  return found;
}

}  // namespace

CodePointSet::CodePointSet(std::span<const CodePointRange> ranges) : ranges_(ranges.begin(), ranges.end()) {
  normalise();
}

CodePointSet CodePointSet::of(std::uint32_t first, std::uint32_t last) {
  CodePointSet set;
  set.ranges_.push_back({first, last});
  return set;
}

CodePointSet& CodePointSet::add(const CodePointSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalise();
  return *this;
}

void CodePointSet::normalise() {
  std::sort(ranges_.begin(), ranges_.end(), [](auto a, auto b) { return a.first < b.first; });
  std::vector<CodePointRange> merged;
  for (const auto range : ranges_) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  ranges_ = std::move(merged);
}

CodePointSet CodePointSet::complement() const {
  CodePointSet rest;
  std::uint32_t next = 0;
  for (const auto range : ranges_) {
    if (range.first > next) rest.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) rest.ranges_.push_back({next, kLastCodePoint});
  return rest;
}

bool CodePointSet::contains(std::uint32_t code_point) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), code_point,
                                      [](std::uint32_t value, const auto& range) { return value < range.first; });
  return after != ranges_.begin() && code_point <= std::prev(after)->last;
}

std::optional<CodePointSet> property(std::string_view name) {
  if (name == "Han") return CodePointSet(kHan);
  if (name == "Hiragana") return CodePointSet(kHiragana);
  if (name == "Katakana") return CodePointSet(kKatakana);
  if (name == "Hangul") return CodePointSet(kHangul);
  const bool known = std::any_of(std::begin(kCategoryNames), std::end(kCategoryNames), [&](std::string_view category) {
    return category == name || (name.size() == 1 && category.starts_with(name));
  });
  if (!known) return std::nullopt;
  return category(name);
}

CodePointTable::CodePointTable(const CodePointSet& set) : blocks_(1) {
  for (const auto range : set.ranges()) {
    for (auto c = range.first; c <= range.last; ++c) {
      auto& block = block_of_[c >> 8];
      if (block == 0) {
        block = static_cast<std::uint16_t>(blocks_.size());
        blocks_.emplace_back();
      }
      blocks_[block][(c >> 6) & 3] |= std::uint64_t{1} << (c & 63);
    }
  }
}

const CodePointSet& space_class() {
  static const CodePointSet set(kSpace);
  return set;
}
const CodePointSet& word_class() {
  static const CodePointSet set(kWord);
  return set;
}
const CodePointSet& digits_of_pre_tokenizer() {
  static const CodePointSet set(kDigit);
  return set;
}
const CodePointSet& space_beside_added_token() {
  static const CodePointSet set(kAddedTokenSpace);
  return set;
}
const CodePointSet& word_beside_added_token() {
  static const CodePointSet set(kAddedTokenWord);
  return set;
}
const CodePointSet& white_space() {
  static const CodePointSet set(kWhiteSpace);
  return set;
}
const CodePointSet& punctuation() {
  static const CodePointSet set(kPunctuation);
  return set;
}
const CodePointSet& word_of_pre_tokenizer() {
  static const CodePointSet set(kWhitespaceWord);
  return set;
}
const CodePointSet& removed_by_bert() {
  static const CodePointSet set(kBertRemoved);
  return set;
}
const CodePointSet& space_of_bert() {
  static const CodePointSet set(kBertSpace);
  return set;
}
const CodePointSet& ideographs_of_bert() {
  static const CodePointSet set(kBertIdeograph);
  return set;
}
const CodePointSet& marks_of_bert() {
  static const CodePointSet set(kBertMark);
  return set;
}
const CodePointSet& combining_marks() {
  static const CodePointSet set(kCombiningMark);
  return set;
}
const CodePointSet& joins_cluster_before() {
  static const CodePointSet set(kJoinsBefore);
  return set;
}
const CodePointSet& joins_cluster_after() {
  static const CodePointSet set(kJoinsAfter);
  return set;
}

void append_lower_case(std::string& to, std::uint32_t c) {
  if (c < 0x80) return to.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c | 0x20 : c));
  for (const auto& pair : kLowerCasePairs) {
    if (pair.upper != c) continue;
    append_utf8(to, pair.first);
    return append_utf8(to, pair.second);
  }
  const auto after = std::upper_bound(std::begin(kLowerCase), std::end(kLowerCase), c,
                                      [](std::uint32_t value, const auto& run) { return value < run.first; });
  if (after != std::begin(kLowerCase)) {
    const auto& run = *std::prev(after);
    if (c <= run.last && (c - run.first) % static_cast<std::uint32_t>(run.step) == 0) {
      return append_utf8(to, static_cast<std::uint32_t>(static_cast<std::int64_t>(c) + run.distance));
    }
  }
  append_utf8(to, c);
}

namespace {

struct Sequence {
  std::size_t length = 0;  // bytes of the whole sequence, or of the maximal part of a wrong one
  bool right = false;
};

bool continues(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// The second byte's range depends on the first (Unicode 15, table 3-7).
std::pair<unsigned char, unsigned char> second_byte_range(unsigned char lead) {
  switch (lead) {
    case 0xE0: return {0xA0, 0xBF};
    case 0xED: return {0x80, 0x9F};
    case 0xF0: return {0x90, 0xBF};
    case 0xF4: return {0x80, 0x8F};
    default: return {0x80, 0xBF};
  }
}

Sequence sequence_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const auto lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const std::size_t left = text.size() - at;
  const auto [low, high] = second_byte_range(lead);
  if (left < 2 || byte(1) < low || byte(1) > high) return {1, false};
  for (std::size_t i = 2; i < length; ++i) {
    if (i >= left || !continues(byte(i))) return {i, false};
  }
  return {length, true};
}

}  // namespace

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const auto sequence = sequence_at(text, at);
    if (!sequence.right) return at;
    at += sequence.length;
  }
  return std::nullopt;
}

std::size_t sequence_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

std::uint32_t next_code_point(std::string_view text, std::size_t& position) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::size_t at = position, length = sequence_length(text[at]);
  position += length;
  switch (length) {
    case 1: return byte(at);
    case 2: return (byte(at) & 0x1F) << 6 | (byte(at + 1) & 0x3F);
    case 3: return (byte(at) & 0x0F) << 12 | (byte(at + 1) & 0x3F) << 6 | (byte(at + 2) & 0x3F);
    default:
      return (byte(at) & 0x07) << 18 | (byte(at + 1) & 0x3F) << 12 | (byte(at + 2) & 0x3F) << 6 | (byte(at + 3) & 0x3F);
  }
}

std::uint32_t last_code_point(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && continues(static_cast<unsigned char>(text[at]))) --at;
  return next_code_point(text, at);
}

void append_utf8(std::string& to, std::uint32_t c) {
  const auto tail = [&](int shift) { to.push_back(static_cast<char>(0x80 | ((c >> shift) & 0x3F))); };
  if (c < 0x80) {
    to.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    to.push_back(static_cast<char>(0xC0 | c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    to.push_back(static_cast<char>(0xE0 | c >> 12));
    tail(6), tail(0);
  } else {
    to.push_back(static_cast<char>(0xF0 | c >> 18));
    tail(12), tail(6), tail(0);
  }
}

std::string with_replacements(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const auto sequence = sequence_at(bytes, at);
    if (sequence.right) {
      text += bytes.substr(at, sequence.length);
    } else {
      text += "\xEF\xBF\xBD";
    }
    at += sequence.length;
  }
  return text;
}

}  // namespace hansa::hf
