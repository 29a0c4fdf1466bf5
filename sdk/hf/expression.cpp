#include "hf/expression.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::hf {
namespace {

bool is_ascii_letter(std::uint32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z' && c < 0x80; }
bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  explicit Parser(std::string_view expression) : text_(expression) {}

  std::vector<ExpressionItem> run() {
    scopes_.push_back({});
    while (at_ < text_.size()) step();
    if (scopes_.size() != 1) refuse("a group that is not closed");
    close_scopes_of_options();
    return std::move(items_);
  }

 private:
  struct Scope {
    bool caseless = false;
    int option_groups = 0;  // groups opened for "(?i)", which lasts to the end of this one
  };
  struct Member {  // of a class, or an escape
    CodePointSet set;
    bool single = false;  // a literal code point, which can begin or end a range
    std::uint32_t code_point = 0;
  };

  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(fmt::format("the expression '{}' has {} at byte {}, which is not supported", text_, what, at_));
  }
  bool next_is(std::string_view part) const { return text_.substr(at_).starts_with(part); }
  bool take(std::string_view part) {
    if (!next_is(part)) return false;
    at_ += part.size();
    return true;
  }
  char take_char() {
    if (at_ >= text_.size()) refuse("its end too early");
    return text_[at_++];
  }

  void step() {
    switch (text_[at_]) {
      case '(': return open_group();
      case ')': return close_group();
      case '|': ++at_; return put("|", Quantifiable::No);
      case '^': ++at_; return put("^", Quantifiable::No);
      case '$': ++at_; return put("$", Quantifiable::No);
      case '*':
      case '+':
      case '?': return simple_quantifier();
      case '{': return interval();
      case '[': return put_set(character_class());
      case '.': ++at_; return put_set(CodePointSet::of('\n').complement());
      case '\\': return escape_outside_class();
      default: return put_literal(next_code_point(text_, at_));
    }
  }

  enum class Quantifiable { No, Yes };
  void put(std::string syntax, Quantifiable after) {
    items_.emplace_back(std::move(syntax));
    quantifiable_ = after == Quantifiable::Yes;
    previous_caseless_ = 0;
  }
  void put_set(CodePointSet set) {
    items_.emplace_back(std::move(set));
    quantifiable_ = true;
    previous_caseless_ = 0;
  }
  // In a caseless scope the engine also folds "ss" with U+00DF and the ligatures, which no set of code points can say.
  void put_literal(std::uint32_t c) {
    if (!scopes_.back().caseless) return put_set(CodePointSet::of(c));
    const std::uint32_t lower = is_ascii_letter(c) ? c | 0x20 : 0;
    for (const std::string_view folded : {"ss", "ff", "fi", "fl", "st"}) {
      if (previous_caseless_ == static_cast<std::uint32_t>(folded[0]) &&
          lower == static_cast<std::uint32_t>(folded[1])) {
        refuse(fmt::format("'{}' without regard to case", folded));
      }
    }
    put_set(caseless(c));
    previous_caseless_ = lower;
  }
  CodePointSet caseless(std::uint32_t c) const {
    if (c >= 0x80) refuse("a character beyond ASCII without regard to case");
    auto set = CodePointSet::of(c);
    if (!is_ascii_letter(c)) return set;
    set.add(CodePointSet::of(c ^ 0x20));
    if ((c | 0x20) == 's') set.add(CodePointSet::of(0x17F));   // long s
    if ((c | 0x20) == 'k') set.add(CodePointSet::of(0x212A));  // Kelvin sign
    return set;
  }

  void open_group() {
    ++at_;
    Scope scope{scopes_.back().caseless, 0};
    if (!take("?")) {
      put("(?:", Quantifiable::No);
    } else if (take("i)")) {
      return options_to_the_end();
    } else if (take("i:")) {
      scope.caseless = true;
      put("(?:", Quantifiable::No);
    } else if (take("-i:")) {
      scope.caseless = false;
      put("(?:", Quantifiable::No);
    } else {
      for (const std::string_view kind : {":", "=", "!", "<=", "<!", ">"}) {
        if (!take(kind)) continue;
        put(fmt::format("(?{}", kind), Quantifiable::No);
        scopes_.push_back(scope);
        return;
      }
      refuse(fmt::format("a group '(?{}'", text_.substr(at_, 3)));
    }
    scopes_.push_back(scope);
  }
  // "(?i)" reaches to the end of its group; in the middle of one, engines differ about what an alternative then means.
  void options_to_the_end() {
    const bool at_start = items_.empty() || (std::holds_alternative<std::string>(items_.back()) &&
                                             std::get<std::string>(items_.back()).starts_with("("));
    if (!at_start) refuse("'(?i)' in the middle of a group");
    scopes_.back().caseless = true;
    put("(?:", Quantifiable::No);
    ++scopes_.back().option_groups;
  }
  void close_scopes_of_options() {
    for (; scopes_.back().option_groups > 0; --scopes_.back().option_groups) put(")", Quantifiable::Yes);
  }
  void close_group() {
    if (scopes_.size() == 1) refuse("a ')' that closes nothing");
    ++at_;
    close_scopes_of_options();
    scopes_.pop_back();
    put(")", Quantifiable::Yes);
  }

  void simple_quantifier() {
    if (!quantifiable_) refuse("a quantifier without anything before it");
    std::string syntax(1, take_char());
    if (next_is("?") || next_is("+")) syntax += take_char();
    put(std::move(syntax), Quantifiable::No);
  }
  void interval() {
    if (!quantifiable_) refuse("'{' without anything before it");
    ++at_;
    const auto number = [&] {
      const auto from = at_;
      while (at_ < text_.size() && is_ascii_digit(text_[at_])) ++at_;
      return std::string(text_.substr(from, at_ - from));
    };
    const auto least = number();
    const bool comma = take(",");
    const auto most = comma ? number() : std::string();
    if (!take("}") || (least.empty() && most.empty())) refuse("'{' that is no repetition");
    if (next_is("+") || (next_is("?") && !comma)) refuse("a mark after '}'");  // not what it means elsewhere
    auto syntax = fmt::format("{{{}{}{}}}", least.empty() ? "0" : least, comma ? "," : "", most);
    if (take("?")) syntax += "?";
    put(std::move(syntax), Quantifiable::No);
  }

  void escape_outside_class() {
    if (take("\\A")) return put("\\A", Quantifiable::No);
    if (take("\\z")) return put("\\z", Quantifiable::No);
    auto member = escape();
    if (member.single) return put_literal(member.code_point);
    put_set(std::move(member.set));
  }

  static Member literal(std::uint32_t c) { return {CodePointSet::of(c), true, c}; }

  Member escape() {
    ++at_;  // the backslash
    if (at_ == text_.size()) refuse("its end after a backslash");
    const auto start = at_;
    const auto c = next_code_point(text_, at_);
    switch (c) {
      case 't': return literal('\t');
      case 'n': return literal('\n');
      case 'r': return literal('\r');
      case 'f': return literal('\f');
      case 'v': return literal('\v');
      case 'a': return literal('\a');
      case 'e': return literal(0x1B);
      case 's': return {space_class()};
      case 'S': return {space_class().complement()};
      case 'd': return {*property("Nd")};
      case 'D': return {property("Nd")->complement()};
      case 'w': return {word_class()};
      case 'W': return {word_class().complement()};
      case 'x': return literal(hexadecimal());
      case 'u': return literal(digits_of_code_point(4));
      case 'p':
      case 'P': return {named_property(c == 'P')};
      default: break;
    }
    if (c < 0x80 && (is_ascii_letter(c) || is_ascii_digit(static_cast<char>(c)))) {
      at_ = start;
      refuse(fmt::format("'\\{}'", static_cast<char>(c)));
    }
    return literal(c);
  }
  std::uint32_t digits_of_code_point(std::size_t count) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const char c = take_char();
      const auto lower = static_cast<char>(c | 0x20);
      if (!is_ascii_digit(c) && !(lower >= 'a' && lower <= 'f')) refuse("something else than hexadecimal digits");
      value = value * 16 + static_cast<std::uint32_t>(is_ascii_digit(c) ? c - '0' : lower - 'a' + 10);
    }
    if (value > kLastCodePoint || (value >= 0xD800 && value <= 0xDFFF)) refuse("a number that is no code point");
    return value;
  }
  std::uint32_t hexadecimal() {
    if (!take("{")) {
      const auto value = digits_of_code_point(2);
      if (value >= 0x80) refuse("a byte beyond ASCII");
      return value;
    }
    const auto end = text_.find('}', at_);
    if (end == std::string_view::npos || end == at_ || end - at_ > 6) refuse("'\\x{' that is no code point");
    const auto value = digits_of_code_point(end - at_);
    ++at_;
    return value;
  }
  CodePointSet named_property(bool inverted) {
    if (scopes_.back().caseless) refuse("a property without regard to case");
    if (!take("{")) refuse("a property without braces");
    if (take("^")) inverted = !inverted;
    const auto end = text_.find('}', at_);
    if (end == std::string_view::npos) refuse("a property that is not closed");
    const auto name = text_.substr(at_, end - at_);
    const auto set = property(name);
    if (!set) refuse(fmt::format("the property '{}'", name));
    at_ = end + 1;
    return inverted ? set->complement() : *set;
  }

  CodePointSet character_class() {
    ++at_;  // the bracket
    const bool inverted = take("^");
    CodePointSet set;
    for (bool first = true; first || !next_is("]"); first = false) {
      if (at_ >= text_.size()) refuse("a class that is not closed");
      if (next_is("[:")) refuse("a class of the form [:name:]");
      if (next_is("&&")) refuse("'&&'");
      if (next_is("[")) {
        set.add(character_class());
        continue;
      }
      auto member = class_member();
      const bool range = member.single && next_is("-") && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (range) {
        ++at_;
        if (next_is("[")) refuse("a class as the end of a range");
        const auto last = class_member();
        if (!last.single || last.code_point < member.code_point) refuse("a range that ends before it starts");
        if (scopes_.back().caseless) refuse("a range without regard to case");
        member.set = CodePointSet::of(member.code_point, last.code_point);
      } else if (member.single && scopes_.back().caseless) {
        member.set = caseless(member.code_point);
      }
      set.add(member.set);
    }
    ++at_;
    return inverted ? set.complement() : set;
  }
  Member class_member() {
    if (at_ >= text_.size()) refuse("a class that is not closed");
    if (next_is("\\b")) {  // a backspace here
      at_ += 2;
      return literal('\b');
    }
    return next_is("\\") ? escape() : literal(next_code_point(text_, at_));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<Scope> scopes_;
  std::vector<ExpressionItem> items_;
  bool quantifiable_ = false;
  std::uint32_t previous_caseless_ = 0;  // the ASCII letter just put in a caseless scope
};

}  // namespace

std::vector<ExpressionItem> parse_expression(std::string_view expression) {
  if (const auto at = first_invalid_utf8(expression)) {
    throw Error(fmt::format("an expression is not UTF-8 from byte {} on", *at));
  }
  return Parser(expression).run();
}

}  // namespace hansa::hf
