#include "hf/split_pattern.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <limits>
#include <map>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::hf {
namespace {

constexpr std::uint32_t kFirstSymbolBeyondAscii = 0x80;
constexpr std::size_t kMostMatchStack = 256u << 20;

// Expressions come from the file: a name short enough for a message.
std::string shortened(std::string_view text) {
  return text.size() <= 200 ? std::string(text) : fmt::format("{}...", text.substr(0, 200));
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[200];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct SplitPattern::Code {
  pcre2_code* code = nullptr;
  bool jit = false;
  ~Code() { pcre2_code_free(code); }
};

struct MatchSpace::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(64 << 10, kMostMatchStack, nullptr);
  std::string symbols;
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

MatchSpace::MatchSpace() : state_(std::make_unique<State>()) {
  pcre2_set_match_limit(state_->context, std::numeric_limits<std::uint32_t>::max());  // a line of 10 MB may need it
  pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}
MatchSpace::~MatchSpace() = default;
MatchSpace::MatchSpace(MatchSpace&&) noexcept = default;
MatchSpace& MatchSpace::operator=(MatchSpace&&) noexcept = default;

SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;

SplitPattern SplitPattern::of_expression(std::string_view expression) {
  return SplitPattern(parse_expression(expression), expression);
}
SplitPattern SplitPattern::of_text(std::string_view literal) {
  if (literal.empty()) throw Error("an empty text as a pattern is not supported");
  SplitPattern pattern;
  pattern.literal_ = literal;
  return pattern;
}
SplitPattern SplitPattern::of_set(const CodePointSet& set) {
  SplitPattern pattern;
  pattern.set_ = std::make_unique<CodePointTable>(set);
  return pattern;
}
SplitPattern SplitPattern::of_items(std::vector<ExpressionItem> items, std::string_view name) {
  return SplitPattern(std::move(items), name);
}

SplitPattern::SplitPattern(std::vector<ExpressionItem> items, std::string_view name) : name_(shortened(name)) {
  assign_symbols(items);
  std::string pattern;
  for (const auto& item : items) {
    const auto* set = std::get_if<CodePointSet>(&item);
    pattern += set ? bytes_class(*set) : std::get<std::string>(item);
  }
  compile(pattern);
}

// ASCII stands for itself. Beyond it, the intervals between all the sets' borders that belong to the same sets share a symbol.
void SplitPattern::assign_symbols(const std::vector<ExpressionItem>& items) {
  std::vector<const CodePointSet*> sets;
  std::vector<std::uint32_t> starts = {kFirstSymbolBeyondAscii};
  for (const auto& item : items) {
    const auto* set = std::get_if<CodePointSet>(&item);
    if (!set) continue;
    sets.push_back(set);
    for (const auto range : set->ranges()) {
      for (const auto border : {range.first, range.last + 1}) {
        if (border > kFirstSymbolBeyondAscii && border <= kLastCodePoint) starts.push_back(border);
      }
    }
  }
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());

  std::vector<unsigned char> symbols(kLastCodePoint + 1);
  for (std::uint32_t c = 0; c < kFirstSymbolBeyondAscii; ++c) symbols[c] = static_cast<unsigned char>(c);
  std::map<std::vector<bool>, unsigned char> symbol_of_membership;
  for (std::size_t i = 0; i < starts.size(); ++i) {
    std::vector<bool> membership;
    for (const auto* set : sets) membership.push_back(set->contains(starts[i]));
    const auto next = kFirstSymbolBeyondAscii + example_of_.size();
    const auto [at, fresh] = symbol_of_membership.try_emplace(std::move(membership), static_cast<unsigned char>(next));
    if (fresh && next > 0xFF) throw Error(fmt::format("the expression '{}' has too many different classes", name_));
    if (fresh) example_of_.push_back(starts[i]);
    const auto end = i + 1 < starts.size() ? starts[i + 1] : kLastCodePoint + 1;
    std::fill(symbols.begin() + starts[i], symbols.begin() + end, at->second);
  }

  std::map<std::array<unsigned char, 256>, std::uint16_t> index_of_block;
  for (std::size_t first = 0; first < symbols.size(); first += 256) {
    std::array<unsigned char, 256> block;
    std::copy_n(symbols.begin() + static_cast<std::ptrdiff_t>(first), 256, block.begin());
    const auto [at, fresh] = index_of_block.try_emplace(block, static_cast<std::uint16_t>(blocks_.size()));
    if (fresh) blocks_.push_back(block);
    block_of_.push_back(at->second);
  }
}

std::string SplitPattern::bytes_class(const CodePointSet& set) const {
  std::vector<unsigned> symbols;
  for (unsigned c = 0; c < kFirstSymbolBeyondAscii; ++c) {
    if (set.contains(c)) symbols.push_back(c);
  }
  for (unsigned i = 0; i < example_of_.size(); ++i) {
    if (set.contains(example_of_[i])) symbols.push_back(kFirstSymbolBeyondAscii + i);
  }
  if (symbols.empty()) return "(?!)";
  if (symbols.size() == 1) return fmt::format("\\x{:02x}", symbols[0]);
  std::string members;
  for (std::size_t i = 0; i < symbols.size();) {
    std::size_t last = i;
    while (last + 1 < symbols.size() && symbols[last + 1] == symbols[last] + 1) ++last;
    members += fmt::format("\\x{:02x}-\\x{:02x}", symbols[i], symbols[last]);
    i = last + 1;
  }
  return fmt::format("[{}]", members);
}

void SplitPattern::compile(const std::string& pattern) {
  code_ = std::make_unique<Code>();
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Multiline: in the reference's syntax ^ and $ are always about lines.
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_MULTILINE, &error,
                              &offset, context.get());
  if (!code_->code) throw Error(fmt::format("the expression '{}' is not supported: {}", name_, pcre2_message(error)));
  code_->jit = pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE) == 0;
}

void SplitPattern::find_symbols(std::string_view symbols, MatchSpace& space, std::vector<TextRange>& found) const {
  auto& state = *space.state_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(symbols.data());
  const auto match = code_->jit ? &pcre2_jit_match : &pcre2_match;
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(state.data);
  std::size_t at = 0, after_last = 0;
  while (at <= symbols.size()) {
    const int count = match(code_->code, subject, symbols.size(), at, 0, state.data, state.context);
    if (count == PCRE2_ERROR_NOMATCH) return;
    if (count < 0) {
      throw Error(
          fmt::format("cannot split a text of {} characters by the expression '{}': {}; break it into shorter lines",
                      symbols.size(), name_, pcre2_message(count)));
    }
    const bool empty = ends[0] == ends[1];
    if (!empty || found.empty() || ends[0] != after_last) found.push_back({ends[0], ends[1]});
    after_last = ends[1];
    at = empty ? ends[1] + 1 : ends[1];
  }
}

void SplitPattern::find(std::string_view text, MatchSpace& space, std::vector<TextRange>& found) const {
  found.clear();
  if (set_) {
    for (std::size_t at = 0; at < text.size();) {
      const auto begin = at;
      if (set_->contains(next_code_point(text, at))) found.push_back({begin, at});
    }
    return;
  }
  if (!literal_.empty()) {
    for (auto at = text.find(literal_); at != text.npos; at = text.find(literal_, at + literal_.size())) {
      found.push_back({at, at + literal_.size()});
    }
    return;
  }
  auto& symbols = space.state_->symbols;
  symbols.resize(text.size());
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++count) {
    const char byte = text[at];
    if (static_cast<unsigned char>(byte) < 0x80) {
      symbols[count] = byte;
      ++at;
    } else {
      symbols[count] = static_cast<char>(symbol_of(next_code_point(text, at)));
    }
  }
  symbols.resize(count);
  find_symbols(symbols, space, found);
  if (count == text.size()) return;  // ASCII: a symbol is a byte
  std::size_t symbol = 0, byte = 0;
  const auto bytes_before = [&](std::size_t symbols_before) {
    for (; symbol < symbols_before; ++symbol) byte += sequence_length(text[byte]);
    return byte;
  };
  for (auto& range : found) {
    range.begin = bytes_before(range.begin);
    range.end = bytes_before(range.end);
  }
}

}  // namespace hansa::hf
