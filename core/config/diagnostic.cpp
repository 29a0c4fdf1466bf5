#include "config/diagnostic.hpp"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/unicode.hpp"

namespace hansa::config {
namespace {

constexpr int kLineColumns = 110;  // of source text shown; longer lines are cut around the caret
constexpr int kTab = 4;

struct Cell {
  std::string text;
  int columns = 1;
};

std::vector<Cell> cells_of(std::string_view line) {
  std::vector<Cell> cells;
  int column = 0;
  while (!line.empty()) {
    const auto c = take_character(line);
    Cell cell;
    if (c == '\t') {
      cell.columns = kTab - column % kTab;
      cell.text.assign(static_cast<std::size_t>(cell.columns), ' ');
    } else if (c < 0x20 || (c >= 0x7F && c < 0xA0)) {
      cell.text = "\uFFFD";
    } else {
      append_utf8(cell.text, c);
      cell.columns = columns_of(c);
    }
    column += cell.columns;
    cells.push_back(std::move(cell));
  }
  return cells;
}

int columns(const std::vector<Cell>& cells, std::size_t first, std::size_t last) {
  int sum = 0;
  for (auto i = first; i < std::min(last, cells.size()); ++i) sum += cells[i].columns;
  return sum;
}

// The part of a line that is shown: all of it, or as much as fits with the caret in it.
std::pair<std::size_t, std::size_t> window(const std::vector<Cell>& cells, std::size_t caret) {
  if (columns(cells, 0, cells.size()) <= kLineColumns) return {0, cells.size()};
  std::size_t first = std::min(caret, cells.size());
  for (int left = kLineColumns / 2; first > 0 && left > 0; --first) left -= cells[first - 1].columns;
  if (columns(cells, 0, caret) < kLineColumns * 3 / 4) first = 0;
  std::size_t last = first;
  for (int left = kLineColumns; last < cells.size() && left > 0; ++last) left -= cells[last].columns;
  return {first, last};
}

std::string caret_lines(const Diagnostic& d) {
  const auto cells = cells_of(d.source_line);
  const std::size_t caret = d.where.column > 0 ? d.where.column - 1 : 0;
  const auto [first, last] = window(cells, caret);
  std::string text;
  for (auto i = first; i < last; ++i) text += cells[i].text;
  const std::string before = first > 0 ? "…" : "", after = last < cells.size() ? "…" : "";
  const auto margin = fmt::format("{:>5} | ", d.where.line);
  const auto indent = columns(cells, first, caret) + static_cast<int>(first > 0);
  const auto under = std::max(1, columns(cells, caret, std::min<std::size_t>(caret + d.width, last)));
  return fmt::format("{}{}{}{}\n{:>{}}{}{}\n", margin, before, text, after, "| ", margin.size(),
                     std::string(indent, ' '), std::string(under, '^'));
}

std::string place(const Position& where) {
  auto text = printable(where.file);
  if (where.line > 0) text += fmt::format(":{}:{}", where.line, std::max(where.column, 1u));
  return text;
}

const char* name_of(Severity severity) { return severity == Severity::Error ? "error" : "warning"; }

auto order(const Diagnostic& d) { return std::tie(d.where.line, d.where.column, d.severity, d.what, d.help); }

std::size_t edits(std::string_view a, std::string_view b) {  // with swaps of neighbours (optimal string alignment)
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i)
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  return cost[a.size()][b.size()];
}

std::string folded(std::string_view name) {
  std::string out;
  for (char c : name)
    if (c != '-' && c != '_') out += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

}  // namespace

void sort_by_position(std::vector<Diagnostic>& all) {
  std::vector<std::string> files;  // in the order in which they were first complained about
  const auto rank = [&](const Diagnostic& d) {
    return std::find(files.begin(), files.end(), d.where.file) - files.begin();
  };
  for (const auto& d : all)
    if (std::find(files.begin(), files.end(), d.where.file) == files.end()) files.push_back(d.where.file);
  std::stable_sort(all.begin(), all.end(), [&](const Diagnostic& a, const Diagnostic& b) {
    const auto ra = rank(a), rb = rank(b);
    return ra != rb ? ra < rb : order(a) < order(b);
  });
  all.erase(std::unique(all.begin(), all.end(),
                        [](const auto& a, const auto& b) { return a.where == b.where && order(a) == order(b); }),
            all.end());
}

bool has_errors(const std::vector<Diagnostic>& all) {
  return std::any_of(all.begin(), all.end(), [](const auto& d) { return d.severity == Severity::Error; });
}

std::string render(const Diagnostic& d) {
  const auto rule = d.rule ? fmt::format(" [rule {}]", d.rule) : std::string();
  auto text = fmt::format("{}: {}: {}{}\n", place(d.where), name_of(d.severity), printable(d.what), rule);
  if (d.where.line > 0) text += caret_lines(d);
  if (!d.help.empty()) text += fmt::format("help: {}\n", printable(d.help));
  return text;
}

std::string render(const std::vector<Diagnostic>& all) {
  if (all.empty()) return {};
  std::string text;
  for (const auto& d : all) text += render(d) + "\n";
  const auto errors =
      std::count_if(all.begin(), all.end(), [](const auto& d) { return d.severity == Severity::Error; });
  const auto warnings = static_cast<std::ptrdiff_t>(all.size()) - errors;
  const auto counted = [](std::ptrdiff_t n, const char* noun) {
    return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
  };
  return text + counted(errors, "error") + ", " + counted(warnings, "warning") + "\n";
}

std::string render_json(const std::vector<Diagnostic>& all) {
  nlohmann::ordered_json list = nlohmann::json::array();
  for (const auto& d : all) {
    nlohmann::ordered_json one;
    one["severity"] = name_of(d.severity);
    one["file"] = printable(d.where.file);
    one["line"] = d.where.line;
    one["column"] = d.where.column;
    one["width"] = d.width;
    one["what"] = printable(d.what);
    one["help"] = printable(d.help);
    one["source"] = printable(d.source_line);
    if (d.rule) one["rule"] = d.rule;
    list.push_back(std::move(one));
  }
  const auto errors =
      std::count_if(all.begin(), all.end(), [](const auto& d) { return d.severity == Severity::Error; });
  nlohmann::ordered_json out;
  out["errors"] = errors;
  out["warnings"] = static_cast<std::ptrdiff_t>(all.size()) - errors;
  out["diagnostics"] = std::move(list);
  return out.dump(2) + "\n";
}

std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& among) {
  if (name.size() > 64) return {};
  std::vector<std::pair<std::size_t, std::string>> near;
  const auto most = name.size() <= 2 ? 1u : name.size() <= 5 ? 2u : 3u;
  const auto short_name = folded(name);
  for (const auto& other : among) {
    if (other.size() > 64) continue;
    const auto short_other = folded(other);
    auto distance = edits(short_name, short_other);
    const bool begins = short_name.size() >= 3 && short_other.starts_with(short_name);
    if (begins) distance = 1;
    if (distance <= most && distance < std::max<std::size_t>(short_name.size(), 2)) near.emplace_back(distance, other);
  }
  std::sort(near.begin(), near.end());
  std::vector<std::string> names;
  for (auto& [distance, other] : near)
    if (names.size() < 3 && std::find(names.begin(), names.end(), other) == names.end()) names.push_back(other);
  return names;
}

std::string quoted_list(const std::vector<std::string>& names, std::string_view last_joint) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? fmt::format(" {} ", last_joint) : ", ";
    text += fmt::format("`{}`", names[i]);
  }
  return text;
}

}  // namespace hansa::config
