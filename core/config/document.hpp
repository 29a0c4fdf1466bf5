// A TOML text as a tree that remembers where everything stood, and keeps what the parser's own tables would sort away: the
// order of the author. Used inside config/ only. Values; no resource; single-threaded.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/diagnostic.hpp"

namespace hansa::config {

struct Span {
  int source = -1;  // index into Sources; -1: nowhere
  std::uint32_t line = 0, column = 0, end_line = 0, end_column = 0;
};

struct Source {
  std::string name;                 // as shown: "configs/quickstart.toml", "--set run.rounds=3"
  std::string text;                 // "" for the command line
  std::filesystem::path directory;  // where its relative paths start; absolute
};

class Sources {
 public:
  int add(Source source);
  const Source& operator[](int index) const { return all_[static_cast<std::size_t>(index)]; }
  Position position(const Span&) const;
  std::uint32_t width(const Span&) const;
  std::string line_of(const Span&) const;
  Diagnostic diagnose(Severity, const Span&, std::string what, std::string help = {}) const;

 private:
  std::vector<Source> all_;
};

struct Entry;
struct Node {
  enum class Kind : std::uint8_t { Table, List, Text, Integer, Real, Boolean, Date };
  Kind kind = Kind::Table;
  std::string text;
  std::int64_t integer = 0;
  double real = 0;
  bool boolean = false;
  std::vector<Entry> entries;  // table, in the order in which they were written
  std::vector<Node> items;     // list
  Span span;

  const Entry* find(std::string_view key) const;
  Entry* find(std::string_view key);
};
struct Entry {
  std::string key;
  Span key_span;
  Node value;
};
const char* name_of(Node::Kind);  // "a table", "a text", …

// Parses sources[source]. A syntax error is one diagnostic, and the end of it.
std::variant<Node, Diagnostic> parse_toml(const Sources& sources, int source);
// One value as it would stand right of `=`, or nothing when it is no TOML. Everything in it has the span `where`.
std::optional<Node> parse_toml_value(std::string_view text, const Span& where);
std::string toml_text(std::string_view);  // quoted and escaped
std::string toml_key(std::string_view);   // bare where possible

// Key by key: `over` wins, tables are merged, everything else is replaced.
void merge(Node& under, Node over);

}  // namespace hansa::config
