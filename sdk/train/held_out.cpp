#include "train/held_out.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "base/digest.hpp"
#include "base/error.hpp"

namespace hansa::train {

namespace {

struct Stretch {  // tokens [first, end) of a row
  std::int64_t row, first, end;
};
struct Example {
  std::uint64_t hash;
  std::vector<Stretch> stretches;  // one, or two of a pair
};

// Where its last label stands: what comes after is padding, of which there is more or less in different batches.
std::int64_t end_of(const std::int64_t* labels, std::int64_t first, std::int64_t end) {
  while (end > first && labels[end - 1] < 0) --end;
  return end;
}

class Examples {  // of one batch
 public:
  Examples(const Batch& batch, std::uint64_t seed)
      : batch_(batch), seed_(seed), tokens_(batch.tokens.contiguous()), labels_(batch.labels.contiguous()) {
    if (batch.segments.defined()) segments_ = batch.segments.contiguous();
  }
  std::vector<Example> all() const {
    std::vector<Example> found;
    const auto rows = tokens_.size(0);
    const std::int64_t step = batch_.task == Task::Preference ? 2 : 1;
    for (std::int64_t row = 0; row + step <= rows; row += step) {
      std::vector<Stretch> stretches;
      for (std::int64_t i = row; i < row + step; ++i) add_stretches(i, stretches);
      if (batch_.task == Task::Preference) {
        if (!stretches.empty()) found.push_back({hash_of(stretches), stretches});
        continue;
      }
      for (const auto& one : stretches) found.push_back({hash_of({one}), {one}});
    }
    return found;
  }

 private:
  const std::int64_t* row_of(const at::Tensor& table, std::int64_t row) const {
    return table.const_data_ptr<std::int64_t>() + row * table.size(1);
  }
  void add_stretches(std::int64_t row, std::vector<Stretch>& to) const {
    const auto length = tokens_.size(1);
    if (batch_.task == Task::Classification) {
      if (labels_.const_data_ptr<std::int64_t>()[row] < 0) return;
      auto end = length;
      if (segments_.defined())
        while (end > 0 && row_of(segments_, row)[end - 1] < 0) --end;
      to.push_back({row, 0, end});
      return;
    }
    const auto* labels = row_of(labels_, row);
    if (!segments_.defined() || batch_.task == Task::Preference) {
      const auto end = end_of(labels, 0, length);
      if (end > 0) to.push_back({row, 0, end});
      return;
    }
    const auto* segments = row_of(segments_, row);
    for (std::int64_t first = 0; first < length;) {
      auto end = first + 1;
      while (end < length && segments[end] == segments[first]) ++end;
      const auto last = end_of(labels, first, end);
      if (segments[first] >= 0 && last > first) to.push_back({row, first, last});
      first = end;
    }
  }
  std::uint64_t hash_of(const std::vector<Stretch>& stretches) const {
    std::vector<std::int64_t> words{static_cast<std::int64_t>(seed_)};
    for (const auto& one : stretches) {
      const auto* tokens = row_of(tokens_, one.row);
      words.push_back(one.end - one.first);
      words.insert(words.end(), tokens + one.first, tokens + one.end);
      words.push_back(batch_.task == Task::Classification ? labels_.const_data_ptr<std::int64_t>()[one.row]
                                                          : row_of(labels_, one.row)[one.end - 1]);
    }
    return xxh3_64(std::as_bytes(std::span(words)));
  }

  const Batch& batch_;
  std::uint64_t seed_;
  at::Tensor tokens_, labels_, segments_;
};

struct Row {  // of a held-out example
  at::Tensor tokens, labels, positions;
};

Row take(const Batch& batch, const Stretch& where) {
  const auto cut = [&](const at::Tensor& table) {
    return table.select(0, where.row).narrow(0, where.first, where.end - where.first).clone();
  };
  return {cut(batch.tokens),
          batch.task == Task::Classification ? batch.labels.narrow(0, where.row, 1).clone() : cut(batch.labels),
          batch.positions.defined() ? cut(batch.positions) : at::arange(0, where.end - where.first, at::kLong)};
}

Batch collate(Task task, std::span<const Row> rows, std::size_t examples) {
  const auto count = static_cast<std::int64_t>(rows.size());
  std::int64_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.tokens.size(0));
  Batch batch{.tokens = at::zeros({count, longest}, at::kLong),
              .labels = task == Task::Classification ? at::zeros({count}, at::kLong)
                                                     : at::full({count, longest}, -100, at::kLong),
              .positions = at::zeros({count, longest}, at::kLong),
              .segments = at::full({count, longest}, -1, at::kLong),
              .documents = static_cast<std::int64_t>(examples),
              .task = task};
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& row = rows[static_cast<std::size_t>(i)];
    const auto length = row.tokens.size(0);
    batch.tokens.select(0, i).narrow(0, 0, length).copy_(row.tokens);
    batch.positions.select(0, i).narrow(0, 0, length).copy_(row.positions);
    batch.segments.select(0, i).narrow(0, 0, length).fill_(0);
    if (task == Task::Classification)
      batch.labels.narrow(0, i, 1).copy_(row.labels);
    else
      batch.labels.select(0, i).narrow(0, 0, length).copy_(row.labels);
  }
  batch.counted = batch.labels.ge(0).sum().item<std::int64_t>();
  return batch;
}

std::uint64_t share_of_all(double fraction) { return static_cast<std::uint64_t>(fraction * std::ldexp(1.0, 53)) << 11; }

}  // namespace

HeldOut::HeldOut(DataSource& data, double fraction, std::uint64_t seed, std::int64_t most, std::int64_t rows)
    : threshold_(share_of_all(fraction)), seed_(seed) {
  std::vector<Row> found;
  std::set<std::uint64_t> held;
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  bool rest = false;
  Task task = Task::Language;
  const auto go_through = [&] {
    data.rewind();
    while (static_cast<std::int64_t>(held.size()) < most || !rest) {
      const auto batch = data.next(rows);
      if (!batch) return;
      task = batch->task;
      for (const auto& example : Examples(*batch, seed_).all()) {
        least = std::min(least, example.hash);
        if (example.hash >= threshold_) rest = true;
        if (example.hash >= threshold_ || static_cast<std::int64_t>(held.size()) >= most) continue;
        if (!held.insert(example.hash).second) continue;  // it stands in the silo twice
        for (const auto& where : example.stretches) found.push_back(take(*batch, where));
      }
    }
  };
  go_through();
  if (held.empty() && rest) {
    threshold_ = least + 1;
    rest = false;
    go_through();
  }
  if (!rest)
    throw Error(
        fmt::format("held_out = {} leaves nothing to train on: the silo has {} example(s) that differ. Give it more "
                    "text, or leave out "
                    "held_out",
                    fraction, held.size()));
  examples_ = held.size();
  const std::size_t each = task == Task::Preference ? 2 : 1;
  const auto together = std::max<std::size_t>(1, static_cast<std::size_t>(rows) / each) * each;
  for (std::size_t first = 0; first < found.size(); first += together) {
    const auto part = std::span(found).subspan(first, std::min(together, found.size() - first));
    batches_.push_back(collate(task, part, part.size() / each));
  }
}

std::optional<Batch> HeldOut::rest_of(const Batch& batch) const {
  const auto all = Examples(batch, seed_).all();
  std::size_t gone = 0;
  auto labels = batch.labels;
  for (const auto& example : all) {
    if (example.hash >= threshold_) continue;
    if (gone++ == 0) labels = labels.clone();
    for (const auto& [row, first, end] : example.stretches) {
      if (batch.task == Task::Classification)
        labels.narrow(0, row, 1).fill_(-100);
      else
        labels.select(0, row).narrow(0, first, end - first).fill_(-100);
    }
  }
  if (gone == 0) return batch;
  if (gone == all.size()) return std::nullopt;
  auto counts = labels.ge(0).view({labels.size(0), -1}).any(1);
  if (batch.task == Task::Preference) counts = counts.view({-1, 2}).any(1, true).expand({-1, 2}).reshape({-1});
  const auto kept = counts.nonzero().squeeze(1);
  const auto pick = [&](const at::Tensor& table) { return table.defined() ? table.index_select(0, kept) : table; };
  Batch rest = batch;
  rest.tokens = pick(batch.tokens);
  rest.labels = pick(labels);
  rest.positions = pick(batch.positions);
  rest.segments = pick(batch.segments);
  rest.counted = rest.labels.ge(0).sum().item<std::int64_t>();
  const auto left = static_cast<std::int64_t>(all.size() - gone), whole = static_cast<std::int64_t>(all.size());
  rest.documents = batch.documents * left / whole;
  rest.bytes = batch.counted == 0 ? 0 : batch.bytes * rest.counted / batch.counted;
  return rest;
}

}  // namespace hansa::train
