// A text table for a terminal or a log: columns as wide as their widest cell, counted in characters, not bytes.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hansa {

class Table {
 public:
  enum class Align : std::uint8_t { Left, Right };
  struct Column {
    std::string title;
    Align align = Align::Right;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells);  // missing cells are empty; too many throw Error
  void rule();                               // a line across, e.g. before the averages
  std::string text() const;                  // ends with a line break

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  // an empty one is a rule
};

}  // namespace hansa
