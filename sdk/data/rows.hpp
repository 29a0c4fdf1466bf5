// Examples as rows of a batch: windows of long documents, several in a row or one, pairs, classes. Values; one thread.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include <hansa/model.hpp>

#include "data/tokens.hpp"

namespace hansa::data {

// An example that is longer than a row.
enum class Long : std::uint8_t {
  Windows,  // goes on in further rows: the last token of one is the first input of the next
  Cut,      // its end is left out
  Skip,
  Error
};

struct Window {  // of an example: `count` inputs, and as many labels one further
  std::uint32_t example = 0;
  std::uint32_t first = 0, count = 0;
  std::uint32_t before = 0;  // labels of the example that stand before it
};
struct Windows {
  std::vector<Window> all;     // in order; for preferences 2i and 2i + 1 belong together
  std::uint64_t examples = 0;  // records that are used: a pair is one
  std::uint64_t too_long = 0;  // of those that do not fit
  std::uint64_t dropped = 0;   // skipped, or without a label after the cut
};
// Throws Error for Long::Error, saying how long the longest is.
Windows windows_of(const Tokens&, Task, std::int64_t length, Long);

// Bytes of the text that `labels` labels after the first `before` stand for. An example's bytes are spread evenly over its
// labels, so that all its windows together give exactly its UTF-8 length; the end of a text stands for none.
std::int64_t bytes_of(const Example&, std::int64_t before, std::int64_t labels);

class RowBuilder {
 public:
  RowBuilder(const Tokens&, Task, std::int64_t rows, std::int64_t length, std::int64_t most_per_row);
  // Into the first row with room; together into rows of their own for a pair. False: no room, nothing changed.
  bool add(std::span<const Window>);
  bool empty() const { return used_rows_ == 0; }
  Batch take();  // rows that stayed empty are left out

 private:
  void put(std::size_t row, const Window&);
  const Tokens& tokens_;
  Task task_;
  std::int64_t length_, most_per_row_;
  std::size_t used_rows_ = 0;
  std::vector<std::int64_t> used_, pieces_;
  Batch batch_;
};

}  // namespace hansa::data
