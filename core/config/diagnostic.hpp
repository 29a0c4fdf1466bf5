// What is wrong with a pipeline, told so that its author can mend it: place, source line, caret, what, how. Collected
// while a file is loaded and its rules are checked; printed by `hansa check` and by every command that loads a pipeline.
// Values; nothing here throws. Any thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_spec.hpp"

namespace hansa::config {

enum class Severity : std::uint8_t { Error, Warning };

struct Diagnostic {
  Severity severity = Severity::Error;
  Position where;
  std::uint32_t width = 1;  // characters to underline, from where.column
  std::string what;         // a sentence without a full stop
  std::string help;         // how to mend it; may be ""
  std::string source_line;  // as it stands in the file; "" when there is none to show
  int rule = 0;             // of the rule table; 0: none
};

// By file (in the order in which they were read), line, column. Equal ones are dropped.
void sort_by_position(std::vector<Diagnostic>&);
bool has_errors(const std::vector<Diagnostic>&);

// "file:3:7: error: …", the source line, a caret below, "help: …": ends with a newline. Tabs are spread, wide characters
// count two columns, long lines are cut around the caret, control characters and broken UTF-8 are made visible.
std::string render(const Diagnostic&);
std::string render(const std::vector<Diagnostic>&);  // all, and a line that counts them; "" when there are none
std::string render_json(
    const std::vector<Diagnostic>&);  // one JSON object: {"errors": 1, "warnings": 0, "diagnostics": […]}

// The names within a few typing errors of `name`, nearest first, at most three.
std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& among);
std::string quoted_list(const std::vector<std::string>& names, std::string_view last_joint);  // "`a`, `b` or `c`"

// Cuts at broken UTF-8: the offset of the first bad byte, or npos.
std::size_t first_invalid_utf8(std::string_view);

}  // namespace hansa::config
