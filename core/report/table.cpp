#include "report/table.hpp"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa {
namespace {

constexpr std::string_view kGap = "  ";

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

void add_cell(std::string& line, std::string_view cell, std::size_t width, Table::Align align) {
  const std::string room(width - characters(cell), ' ');
  if (align == Table::Align::Right) line += room;
  line += cell;
  if (align == Table::Align::Left) line += room;
}

}  // namespace

void Table::row(std::vector<std::string> cells) {
  if (cells.size() > columns_.size() || columns_.empty()) {
    throw Error(fmt::format("a table of {} columns was given a row of {}", columns_.size(), cells.size()));
  }
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::rule() { rows_.emplace_back(); }

std::string Table::text() const {
  std::vector<std::size_t> widths;
  std::size_t total = 0;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    auto width = characters(columns_[i].title);
    for (const auto& cells : rows_) {
      if (!cells.empty()) width = std::max(width, characters(cells[i]));
    }
    widths.push_back(width);
    total += width + (i > 0 ? kGap.size() : 0);
  }
  std::string across;
  for (std::size_t i = 0; i < total; ++i) across += "─";

  std::string text;
  const auto add_line = [&](const auto& cell_of) {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) line += kGap;
      add_cell(line, cell_of(i), widths[i], columns_[i].align);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  add_line([&](std::size_t i) -> std::string_view { return columns_[i].title; });
  text += across + "\n";
  for (const auto& cells : rows_) {
    if (cells.empty()) {
      text += across + "\n";
    } else {
      add_line([&](std::size_t i) -> std::string_view { return cells[i]; });
    }
  }
  return text;
}

}  // namespace hansa
