#include "data/rows.hpp"

#include <algorithm>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::data {

namespace {

std::int64_t inputs_of(const Example& example, Task task) {  // the last token of a language's row is a label only
  return task == Task::Classification ? example.count : std::int64_t{example.count} - 1;
}

// Labels that inputs [first, first + count) lead to.
std::uint32_t labels_in(std::span<const std::int32_t> ids, std::int64_t first, std::int64_t count) {
  const auto begin = ids.begin() + first + 1;
  return static_cast<std::uint32_t>(std::count_if(begin, begin + count, [](auto token) { return token >= 0; }));
}

class Cutter {
 public:
  Cutter(const Tokens& tokens, Task task, std::int64_t length, Long rule)
      : tokens_(tokens), task_(task), length_(length), rule_(rule) {}

  Windows run() {
    const auto count = tokens_.examples().size();
    const std::size_t step = task_ == Task::Preference ? 2 : 1;
    for (std::size_t e = 0; e + step <= count; e += step) one(e, step);
    if (rule_ == Long::Error && found_.too_long > 0)
      throw Error(fmt::format("{} examples are longer than a row of {} tokens; the longest has {}", found_.too_long,
                              length_, longest_));
    return std::move(found_);
  }

 private:
  void one(std::size_t first, std::size_t step) {
    bool fits = true;
    for (auto e = first; e < first + step; ++e) {
      const auto inputs = inputs_of(tokens_.examples()[e], task_);
      fits = fits && inputs <= length_;
      longest_ = std::max(longest_, inputs);
    }
    if (!fits) ++found_.too_long;
    if (!fits && rule_ == Long::Skip) return drop();
    const auto held = found_.all.size();
    for (auto e = first; e < first + step; ++e) {
      const auto before = found_.all.size();
      cut(e);
      if (found_.all.size() > before) continue;
      found_.all.resize(held);  // one of a pair has no answer left
      return drop();
    }
    ++found_.examples;
  }
  void drop() { ++found_.dropped; }

  void cut(std::size_t e) {
    const auto& example = tokens_.examples()[e];
    const auto inputs = inputs_of(example, task_);
    if (inputs <= length_) return push(e, 0, inputs, 0);
    if (rule_ != Long::Windows) {
      if (task_ == Task::Classification || labels_in(tokens_.ids_of(example), 0, length_) > 0) push(e, 0, length_, 0);
      return;
    }
    std::uint32_t before = 0;
    for (std::int64_t first = 0; first < inputs; first += length_) {
      const auto count = std::min(length_, inputs - first);
      const auto labels = example.learnt + 1 == example.count ? static_cast<std::uint32_t>(count)  // all of them
                                                              : labels_in(tokens_.ids_of(example), first, count);
      if (labels > 0) push(e, first, count, before);
      before += labels;
    }
  }
  void push(std::size_t e, std::int64_t first, std::int64_t count, std::uint32_t before) {
    found_.all.push_back(
        {static_cast<std::uint32_t>(e), static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(count), before});
  }

  const Tokens& tokens_;
  Task task_;
  std::int64_t length_, longest_ = 0;
  Long rule_;
  Windows found_;
};

}  // namespace

Windows windows_of(const Tokens& tokens, Task task, std::int64_t length, Long rule) {
  return Cutter(tokens, task, length, rule).run();
}

std::int64_t bytes_of(const Example& example, std::int64_t before, std::int64_t labels) {
  if (example.counted == 0) return 0;
  const std::int64_t counted = example.counted;
  const auto up_to = [&](std::int64_t count) {
    return static_cast<std::int64_t>(example.bytes) * std::min(count, counted) / counted;
  };
  return up_to(before + labels) - up_to(before);
}

RowBuilder::RowBuilder(const Tokens& tokens, Task task, std::int64_t rows, std::int64_t length,
                       std::int64_t most_per_row)
    : tokens_(tokens),
      task_(task),
      length_(length),
      most_per_row_(most_per_row),
      used_(static_cast<std::size_t>(rows)),
      pieces_(static_cast<std::size_t>(rows)) {
  batch_.task = task;
  batch_.tokens = at::zeros({rows, length}, at::kLong);
  batch_.labels =
      task == Task::Classification ? at::full({rows}, -100, at::kLong) : at::full({rows, length}, -100, at::kLong);
  batch_.positions = at::zeros({rows, length}, at::kLong);
  batch_.segments = at::full({rows, length}, -1, at::kLong);
}

bool RowBuilder::add(std::span<const Window> windows) {
  if (windows.size() > 1) {  // a pair
    if (used_rows_ + windows.size() > used_.size()) return false;
    for (const auto& window : windows) put(used_rows_, window);
    ++batch_.documents;
    return true;
  }
  std::size_t row = 0;
  while (row < used_.size() && (used_[row] + windows[0].count > length_ || pieces_[row] >= most_per_row_)) ++row;
  if (row == used_.size()) return false;
  put(row, windows[0]);
  return true;
}

void RowBuilder::put(std::size_t row, const Window& window) {
  const auto& example = tokens_.examples()[window.example];
  const auto at = static_cast<std::int64_t>(row) * length_ + used_[row];
  auto* inputs = batch_.tokens.data_ptr<std::int64_t>() + at;
  auto* positions = batch_.positions.data_ptr<std::int64_t>() + at;
  auto* segments = batch_.segments.data_ptr<std::int64_t>() + at;
  const auto* ids = tokens_.ids().data() + example.first + window.first;
  for (std::int64_t i = 0; i < window.count; ++i) {
    inputs[i] = id_of(ids[i]);
    positions[i] = i;
    segments[i] = pieces_[row];
  }
  if (task_ == Task::Classification) {
    batch_.labels.data_ptr<std::int64_t>()[row] = example.label;
    ++batch_.counted;
    batch_.bytes += static_cast<std::int64_t>(example.bytes);
  } else {
    auto* labels = batch_.labels.data_ptr<std::int64_t>() + at;
    std::int64_t counted = 0;
    for (std::int64_t i = 0; i < window.count; ++i) {
      if (ids[i + 1] < 0) continue;
      labels[i] = ids[i + 1];
      ++counted;
    }
    batch_.counted += counted;
    batch_.bytes += bytes_of(example, window.before, counted);
  }
  used_rows_ = std::max(used_rows_, row + 1);
  used_[row] += window.count;
  if (++pieces_[row], task_ != Task::Preference && window.before == 0) ++batch_.documents;
}

Batch RowBuilder::take() {
  const auto rows = static_cast<std::int64_t>(used_rows_);
  const auto longest = std::ranges::max(used_);
  const bool packed = std::ranges::any_of(pieces_, [](auto pieces) { return pieces > 1; });
  const auto cut = [&](at::Tensor& tensor) {
    tensor = tensor.narrow(0, 0, rows);
    if (tensor.dim() > 1) tensor = tensor.narrow(1, 0, longest);
    tensor = tensor.contiguous();
  };
  for (auto* tensor : {&batch_.tokens, &batch_.labels, &batch_.positions, &batch_.segments}) cut(*tensor);
  // In a language's row padding stands at the end, where causal attention hides it from all that counts.
  if (task_ == Task::Language && !packed) batch_.segments = at::Tensor();
  return std::move(batch_);
}

}  // namespace hansa::data
