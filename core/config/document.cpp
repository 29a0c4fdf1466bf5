#include "config/document.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "config/unicode.hpp"

namespace hansa::config {

int Sources::add(Source source) {
  all_.push_back(std::move(source));
  return static_cast<int>(all_.size()) - 1;
}

Position Sources::position(const Span& span) const {
  if (span.source < 0) return {};
  return {(*this)[span.source].name, span.line, span.column};
}

std::string Sources::line_of(const Span& span) const {
  if (span.source < 0 || span.line == 0) return {};
  std::string_view text = (*this)[span.source].text;
  for (std::uint32_t line = 1; line < span.line; ++line) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  text = text.substr(0, text.find('\n'));
  if (text.ends_with('\r')) text.remove_suffix(1);
  if (span.line == 1 && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return std::string(text);
}

std::uint32_t Sources::width(const Span& span) const {
  if (span.line == 0) return 1;
  if (span.end_line == span.line && span.end_column > span.column) return span.end_column - span.column;
  const auto length = static_cast<std::uint32_t>(count_characters(line_of(span)));
  return span.end_line > span.line && length >= span.column ? length - span.column + 1 : 1;
}

Diagnostic Sources::diagnose(Severity severity, const Span& span, std::string what, std::string help) const {
  return {severity, position(span), width(span), std::move(what), std::move(help), line_of(span)};
}

const Entry* Node::find(std::string_view key) const {
  const auto at = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  return at == entries.end() ? nullptr : &*at;
}
Entry* Node::find(std::string_view key) { return const_cast<Entry*>(std::as_const(*this).find(key)); }

const char* name_of(Node::Kind kind) {
  switch (kind) {
    case Node::Kind::Table: return "a table";
    case Node::Kind::List: return "a list";
    case Node::Kind::Text: return "a text";
    case Node::Kind::Integer: return "an integer";
    case Node::Kind::Real: return "a decimal number";
    case Node::Kind::Boolean: return "a boolean";
    case Node::Kind::Date: return "a date or time";
  }
  return "?";
}

std::string toml_text(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const auto c = take_character(text);
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c < 0x20 || c == 0x7F)
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    else
      append_utf8(out, c);
  }
  return out + '"';
}

std::string toml_key(std::string_view key) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !key.empty() && std::all_of(key.begin(), key.end(), plain) ? std::string(key) : toml_text(key);
}

void merge(Node& under, Node over) {
  if (under.kind != Node::Kind::Table || over.kind != Node::Kind::Table) {
    under = std::move(over);
    return;
  }
  under.span = over.span;
  for (auto& entry : over.entries) {
    if (auto* held = under.find(entry.key)) {
      held->key_span = entry.key_span;
      merge(held->value, std::move(entry.value));
    } else {
      under.entries.push_back(std::move(entry));
    }
  }
}

}  // namespace hansa::config
