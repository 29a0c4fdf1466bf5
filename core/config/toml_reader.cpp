// The only file that knows the TOML library (its header costs a second). Debian's build of it throws.
#include <toml++/toml.h>

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "config/document.hpp"
#include "config/unicode.hpp"

namespace hansa::config {
namespace {

Span span_of(const toml::source_region& region, int source) {
  return {source, region.begin.line, region.begin.column, region.end.line, region.end.column};
}

Node convert(const toml::node& from, int source) {
  Node node;
  node.span = span_of(from.source(), source);
  if (const auto* table = from.as_table()) {
    for (auto&& [key, value] : *table)
      node.entries.push_back({std::string(key.str()), span_of(key.source(), source), convert(value, source)});
    // The parser's tables are sorted by key: back to the author's order.
    std::stable_sort(node.entries.begin(), node.entries.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.key_span.line, a.key_span.column) < std::tie(b.key_span.line, b.key_span.column);
    });
  } else if (const auto* array = from.as_array()) {
    node.kind = Node::Kind::List;
    for (auto&& item : *array) node.items.push_back(convert(item, source));
  } else if (const auto* text = from.as_string()) {
    node.kind = Node::Kind::Text;
    node.text = text->get();
  } else if (const auto* integer = from.as_integer()) {
    node.kind = Node::Kind::Integer;
    node.integer = integer->get();
  } else if (const auto* real = from.as_floating_point()) {
    node.kind = Node::Kind::Real;
    node.real = real->get();
  } else if (const auto* boolean = from.as_boolean()) {
    node.kind = Node::Kind::Boolean;
    node.boolean = boolean->get();
  } else {
    node.kind = Node::Kind::Date;
  }
  return node;
}

void place_everywhere(Node& node, const Span& where) {
  node.span = where;
  for (auto& item : node.items) place_everywhere(item, where);
  for (auto& entry : node.entries) {
    entry.key_span = where;
    place_everywhere(entry.value, where);
  }
}

// The part of a message between two quotes after `before`.
std::optional<std::string> quoted_after(std::string_view text, std::string_view before) {
  const auto at = text.find(before);
  if (at == std::string_view::npos) return std::nullopt;
  const auto open = text.find('\'', at + before.size());
  const auto close = open == std::string_view::npos ? open : text.find('\'', open + 1);
  if (close == std::string_view::npos) return std::nullopt;
  return std::string(text.substr(open + 1, close - open - 1));
}

constexpr const char* kEnds =
    "a syntax error ends the reading: what follows was not checked; mend this and check again";

// In words for the author of a pipeline; the span is narrowed to the word in question where it stands in the line.
Diagnostic explain(const toml::parse_error& error, const Sources& sources, int source) {
  auto span = span_of(error.source(), source);
  span.end_line = span.line;
  span.end_column = span.column + 1;
  const std::string said(error.description());
  const auto point_at = [&](const std::string& word) {
    const auto line = sources.line_of(span);
    const auto at = line.find(word);
    if (at == std::string::npos) return;
    span.column = static_cast<std::uint32_t>(count_characters(std::string_view(line).substr(0, at))) + 1;
    span.end_column = span.column + static_cast<std::uint32_t>(count_characters(word));
  };
  if (auto key = quoted_after(said, "cannot redefine existing")) {
    point_at(*key);
    return sources.diagnose(Severity::Error, span, fmt::format("`{}` is written a second time", *key),
                            fmt::format("a key or section may stand only once: keep one of them ({})", kEnds));
  }
  if (said.find("is not representable in 64 bits") != std::string::npos) {
    const auto number = quoted_after(said, ":").value_or("the number");
    point_at(number);
    return sources.diagnose(Severity::Error, span, fmt::format("{} does not fit into 64 bits", number),
                            fmt::format("integers go from -9223372036854775808 to 9223372036854775807 ({})", kEnds));
  }
  if (said.find("control characters") != std::string::npos && span.column > count_characters(sources.line_of(span)))
    return sources.diagnose(Severity::Error, span, "TOML syntax: the text is not closed on this line", kEnds);
  const auto colon = said.starts_with("Error while parsing ") ? said.find(": ") : std::string::npos;
  const auto what = colon == std::string::npos
                        ? said
                        : fmt::format("{} (in a {})", said.substr(colon + 2), said.substr(20, colon - 20));
  return sources.diagnose(Severity::Error, span, "TOML syntax: " + what, kEnds);
}

std::optional<Diagnostic> broken_utf8(const Sources& sources, int source) {
  const std::string_view text = sources[source].text;
  const auto at = first_invalid_utf8(text);
  if (at == std::string_view::npos) return std::nullopt;
  const auto before = text.substr(0, at);
  const auto line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  Span span{source, static_cast<std::uint32_t>(std::count(before.begin(), before.end(), '\n')) + 1,
            static_cast<std::uint32_t>(count_characters(before.substr(line_start))) + 1};
  span.end_line = span.line;
  span.end_column = span.column + 1;
  return sources.diagnose(Severity::Error, span,
                          fmt::format("byte 0x{:02x} is not UTF-8", static_cast<unsigned char>(text[at])),
                          "save the file as UTF-8; the reading ends here: what follows was not checked");
}

}  // namespace

std::variant<Node, Diagnostic> parse_toml(const Sources& sources, int source) {
  if (auto broken = broken_utf8(sources, source)) return *broken;
  try {
    return convert(toml::parse(std::string_view(sources[source].text)), source);
  } catch (const toml::parse_error& error) {
    return explain(error, sources, source);
  }
}

std::optional<Node> parse_toml_value(std::string_view text, const Span& where) {
  if (first_invalid_utf8(text) != std::string_view::npos || text.find('\n') != std::string_view::npos)
    return std::nullopt;
  try {
    const auto table = toml::parse("value = " + std::string(text) + "\n");
    if (table.size() != 1) return std::nullopt;
    auto node = convert(*table.get("value"), where.source);
    place_everywhere(node, where);
    return node;
  } catch (const toml::parse_error&) {
    return std::nullopt;
  }
}

}  // namespace hansa::config
