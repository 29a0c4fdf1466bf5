// What a data source promises: every document once in file order, an endless shuffle that is a function of silo and seed,
// labels one further than tokens, counts that are true, and words for silos that it cannot read.
#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/file.hpp"
#include "conformance/driver.hpp"
#include "conformance/probes.hpp"
#include "conformance/silos.hpp"

namespace hansa::conformance {
namespace {

std::string shown(const std::vector<std::size_t>& documents) { return fmt::format("{}", fmt::join(documents, " ")); }

class DataSourceDriver final : public Driver {
 public:
  DataSourceDriver(const Subject& subject, const Read& read, const Value& params, std::uint64_t run_seed)
      : read_(read), source_(subject.make_with<DataSource>(params, run_seed)) {}
  Component& component() override { return *source_; }
  NamedTensors play(const Case& input) override {
    source_->open(read_.silos.first, read_.tokenizer.get(), kLongest);
    source_->shuffle(input.seed + 1000 * input.round);
    auto trace = some_batches(*source_, 1 + input.size, 4);
    source_->rewind();
    for (auto& one : some_batches(*source_, 1 + input.size, 4)) trace.push_back(std::move(one));
    return trace;
  }
  void leave_half_way(const Case& input) override {
    source_->open(read_.silos.first, read_.tokenizer.get(), kLongest);
    source_->shuffle(input.seed);
    source_->next(1);
  }
  std::string describe(const Case& input) const override {
    return fmt::format("the silo {}, shuffle({}), next({})", read_.silos.first.filename().string(),
                       input.seed + 1000 * input.round, 1 + input.size);
  }

 private:
  Read read_;
  Instance<DataSource> source_;
};

// Documents of a silo, by the size of a case.
constexpr std::size_t kSizes[] = {1, 2, 4, 8, kDocuments};

// On a silo of fourteen documents; when that breaks, on smaller ones. A silo of the user's is as it is.
std::function<void(const Subject&)> on_silo(void (*check)(const Subject&, const Read&)) {
  return [check](const Subject& subject) {
    const Read whole(subject);
    const auto name = whole.silos.first.filename().string();
    if (!whole.silos.marked)
      return with_input(subject, subject.seed, "the silo " + name, [&] { check(subject, whole); });
    largest_then_smaller(
        subject, [&](const Case& input) { return fmt::format("{}, {} document(s)", name, kSizes[input.size]); },
        [&](const Case& input) {
          input.size == kLargest ? check(subject, whole) : check(subject, Read(subject, kSizes[input.size]));
        });
  };
}

// ---- checks ----------------------------------------------------------------------------------------------------------------

void each_once(const Subject& subject, const Read& read) {
  const auto source = read.open(subject);
  const bool whole = rows_show_marks(read, *source);
  Pass first;
  for (const std::int64_t rows : {1, 2, 5}) {
    const auto pass = whole_pass(*source, rows, kLongest, *read.tokenizer);
    hold(!source->next(rows), "after the end of a pass in file order next() gives something");
    hold(pass.documents == static_cast<std::int64_t>(source->examples()),
         fmt::format("a pass in file order with {} rows says that it holds {} documents; examples() says {}", rows,
                     pass.documents, source->examples()));
    if (rows == 1) first = pass;
    hold(pass.counted == first.counted && pass.bytes == first.bytes,
         fmt::format("a pass of one row at a time counts {} labels and {} bytes, one of {} rows {} and {}",
                     first.counted, first.bytes, rows, pass.counted, pass.bytes));
    if (!read.silos.marked || (rows > 1 && !whole)) continue;
    auto texts = rows_of(pass, *read.tokenizer);
    if (rows == 1) texts = {fmt::format("{}", fmt::join(texts, ""))};  // a document may be cut into rows
    auto marks = marks_in(texts);
    std::vector<std::size_t> want(read.silos.documents);
    for (std::size_t i = 0; i < read.silos.documents; ++i) want[i] = i;
    std::ranges::sort(marks);
    hold(marks == want, fmt::format("of the documents 0 to {}, a pass in file order with {} rows gives {}",
                                    read.silos.documents - 1, rows, shown(marks)));
  }
}

void labels_are_shifted(const Subject& subject, const Read& read) {
  const auto source = read.open(subject);
  std::int64_t looked_at = 0;
  for (const auto& batch : whole_pass(*source, 4, kLongest, *read.tokenizer).batches) {
    for (std::int64_t row = 0; row < batch.tokens.size(0); ++row) {
      for (std::int64_t i = 0; i + 1 < batch.tokens.size(1); ++i) {
        if (at(batch.labels, row, i) == -100 || at(batch.labels, row, i + 1) == -100) continue;
        if (batch.segments.defined() && at(batch.segments, row, i) != at(batch.segments, row, i + 1)) continue;
        if (batch.positions.defined() && at(batch.positions, row, i) + 1 != at(batch.positions, row, i + 1)) continue;
        ++looked_at;
        hold(at(batch.labels, row, i) == at(batch.tokens, row, i + 1),
             fmt::format("row {}: the label at {} is {}, the token after it {}; labels[t] follows tokens[t]", row, i,
                         at(batch.labels, row, i), at(batch.tokens, row, i + 1)));
      }
    }
  }
  if (looked_at == 0) throw NotConcerned("no two labels in a row count");
}

void bytes_are_those_of_labels(const Subject& subject, const Read& read) {
  if (!subject.checkpoint.empty())
    throw NotConcerned("with a tokenizer of the user's it is not known what a token's bytes are");
  for (const auto longest : {kLongest, std::int64_t{16}}) {
    const auto source = read.open(subject, longest);
    const auto pass = whole_pass(*source, 3, longest, *read.tokenizer);
    std::int64_t bytes = 0;  // one token is one byte; begin and end stand for none
    for (const auto& batch : pass.batches)
      for (std::int64_t row = 0; row < batch.labels.size(0); ++row)
        for (std::int64_t i = 0; i < batch.labels.size(1); ++i) {
          const auto label = at(batch.labels, row, i);
          if (label >= 0 && label < kBytes) ++bytes;
        }
    hold(pass.bytes == bytes,
         fmt::format("with rows of at most {} tokens a pass says that its labels stand for {} bytes; they stand for {}",
                     longest, pass.bytes, bytes));
  }
}

void rows_fit(const Subject& subject, const Read& read) {
  for (const std::int64_t longest : {8, 33}) {
    const auto source = read.open(subject, longest);
    whole_pass(*source, 4, longest, *read.tokenizer);
    source->shuffle(subject.seed);
    for (int i = 0; i < 8; ++i) {
      const auto batch = source->next(3);
      hold(batch.has_value(), "a shuffled pass ended");
      check_batch(*batch, 3, longest, *read.tokenizer);
    }
  }
}

void shuffle_goes_on(const Subject& subject, const Read& read) {
  const auto source = read.open(subject);
  const bool whole = rows_show_marks(read, *source);
  source->shuffle(subject.seed);
  std::int64_t documents = 0;
  std::vector<std::string> rows;
  const auto enough = 3 * static_cast<std::int64_t>(source->examples());
  for (int i = 0; documents < enough; ++i) {
    const auto batch = source->next(1);
    hold(batch.has_value(),
         fmt::format("a shuffled pass over {} documents ends after {}", source->examples(), documents));
    hold(i < kTooMany, fmt::format("{} batches say that they hold {} documents", i, documents));
    documents += batch->documents;
    append_rows(rows, *batch, *read.tokenizer);
  }
  if (!whole) return;
  const auto marks = marks_in(rows);
  hold(marks.size() >= 2 * read.silos.documents, "fewer documents than it says");
  const auto pass = [&](std::size_t number) {
    const auto begin = marks.begin() + static_cast<std::ptrdiff_t>(number * read.silos.documents);
    return std::vector<std::size_t>(begin, begin + read.silos.documents);
  };
  const auto first = pass(0), second = pass(1);
  for (const auto& one : {first, second})
    hold(std::set<std::size_t>(one.begin(), one.end()).size() == read.silos.documents,
         "a shuffled pass does not give every document once: " + shown(one));
  constexpr std::size_t kEnough = 6;  // fewer have the same order too often
  hold(first != second || read.silos.documents < kEnough,
       "the second shuffled pass has the order of the first: " + shown(first));
}

void shuffle_is_a_function(const Subject& subject, const Read& read) {
  const auto order = [&](DataSource& source, std::uint64_t seed) {
    source.shuffle(seed);
    return some_batches(source, 2, 6);
  };
  const auto source = read.open(subject);
  const auto one = subject.seed;
  const auto want = order(*source, one);
  order(*source, one + 1);
  source->rewind();
  source->next(3);
  auto found = difference(order(*source, one), want);
  hold(found.empty(), fmt::format("shuffle({}) after other passes gives another order than at first: {}", one, found));
  found = difference(order(*read.open(subject), one), want);
  hold(found.empty(), fmt::format("shuffle({}) in another instance gives another order: {}", one, found));
  if (source->examples() < 4) throw NotConcerned("the silo has too few documents for other orders");
  bool any = false;
  for (auto seed = one + 1; seed <= one + 4; ++seed) any = any || !difference(order(*source, seed), want).empty();
  hold(any, fmt::format("the seeds {} to {} all give the same order", one, one + 4));
}

void reopens(const Subject& subject, const Read& read) {
  const auto source = read.open(subject);
  const auto pass = [&](const std::filesystem::path& silo) {
    source->open(silo, read.tokenizer.get(), kLongest);
    source->rewind();
    return some_batches(*source, 2, 100);
  };
  const auto first = pass(read.silos.first);
  const auto second = pass(read.silos.second);
  if (read.silos.marked)
    hold(!difference(first, second).empty(), "after another silo was opened it still gives the first one's documents");
  const auto found = difference(pass(read.silos.first), first);
  hold(found.empty(), "opened again the silo gives something else: " + found);
}

void refuses_in_words(const Subject& subject, const Read& read) {
  const auto empty_file = subject.scratch / ("empty" + read.silos.first.extension().string()),
             empty_folder = subject.scratch / "empty-silo",
             missing = subject.scratch / ("missing" + read.silos.first.extension().string());
  write_file_atomically(empty_file, "", Durability::Process);
  std::filesystem::create_directories(empty_folder);
  for (const auto& [what, path] :
       {std::pair("a missing file", missing), {"an empty file", empty_file}, {"an empty folder", empty_folder}}) {
    with_input(subject, subject.seed, what, [&, what = what, path = path] {
      const auto said = sentence_of([&] { subject.make<DataSource>()->open(path, read.tokenizer.get(), kLongest); });
      hold(!said.empty(), fmt::format("it opens {} and says nothing", what));
      hold(said.find(path.filename().string()) != std::string::npos,
           fmt::format("it refuses {} without naming it: {}", what, said));
    });
  }
}

void without_tokenizer(const Subject& subject, const Read& read) {
  const auto source = subject.make<DataSource>();
  const auto said = sentence_of([&] { source->open(read.silos.first, nullptr, kLongest); });
  if (!said.empty()) return;  // refused in words
  source->rewind();
  hold(source->next(2).has_value(), "without a tokenizer it opens a silo and gives no batch");
}

}  // namespace

Drive drive_data_source(const Subject& subject) {
  const Read read(subject);
  return {[&subject, read](const Value& params, std::uint64_t run_seed) {
            return std::make_unique<DataSourceDriver>(subject, read, params, run_seed);
          },
          false};
}

std::vector<Check> data_source_checks() {
  return {
      {"each-once", "A pass in file order gives each document once and ends.", on_silo(each_once)},
      {"labels", "Labels are the tokens one further; those that count are counted.", on_silo(labels_are_shifted)},
      {"bytes", "It says how many bytes of text its labels stand for.", on_silo(bytes_are_those_of_labels)},
      {"rows", "No more rows and no longer ones than asked for.", on_silo(rows_fit)},
      {"endless", "A shuffled pass goes on with another order, each document once in each.", on_silo(shuffle_goes_on)},
      {"shuffle", "The order is a function of silo and seed.", on_silo(shuffle_is_a_function)},
      {"reopen", "A silo opened again, with another in between, gives the same.", on_silo(reopens)},
      {"refusals", "Silos that are missing or empty are refused by name.", on_silo(refuses_in_words)},
      {"no-tokenizer", "A checkpoint without tokenizer is refused or served.", on_silo(without_tokenizer)},
  };
}

}  // namespace hansa::conformance
