#include "train/held_out.hpp"

#include <algorithm>
#include <set>

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::train;
using Catch::Matchers::Contains;

namespace {

// Documents of their own lengths: document d is the token d again and again. Packed two in a row, in an order that turns.
class Silo : public Stateless<DataSource> {
 public:
  Silo(Task task, std::int64_t count) : task_(task), count_(count) {}
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return static_cast<std::uint64_t>(count_); }
  void shuffle(std::uint64_t seed) override { turn_ = static_cast<std::int64_t>(seed), at_ = 0, ends_ = false; }
  void rewind() override { turn_ = 0, at_ = 0, ends_ = true; }
  std::optional<Batch> next(std::int64_t rows) override {
    const std::int64_t length = 24;
    Batch batch{.tokens = at::zeros({rows, length}, at::kLong),
                .labels = task_ == Task::Classification ? at::full({rows}, 3, at::kLong)
                                                        : at::full({rows, length}, -100, at::kLong),
                .positions = at::zeros({rows, length}, at::kLong),
                .segments = at::full({rows, length}, -1, at::kLong),
                .task = task_};
    std::int64_t row = 0;
    for (; row < rows && (!ends_ || at_ < count_); ++row) {
      std::int64_t used = 0;
      for (std::int64_t part = 0; part < (task_ == Task::Language ? 2 : 1) && (!ends_ || at_ < count_); ++part) {
        const auto document = task_ == Task::Preference ? (at_ + turn_) % count_ * 2 + row % 2 : (at_ + turn_) % count_;
        used += put(batch, row, used, document, part);
        if (task_ != Task::Preference || row % 2 == 1) ++at_, ++batch.documents;
      }
    }
    if (row == 0) return std::nullopt;
    for (auto* table : {&batch.tokens, &batch.labels, &batch.positions, &batch.segments})
      *table = table->narrow(0, 0, row);
    batch.counted = batch.labels.ge(0).sum().item<std::int64_t>();
    batch.bytes = 10 * batch.counted;
    return batch;
  }

 private:
  std::int64_t put(Batch& batch, std::int64_t row, std::int64_t first, std::int64_t document, std::int64_t part) const {
    const auto length = 3 + document % 5;
    batch.tokens.select(0, row).narrow(0, first, length).fill_(document + 1);
    batch.segments.select(0, row).narrow(0, first, length).fill_(part);
    if (task_ != Task::Classification) batch.labels.select(0, row).narrow(0, first, length).fill_(document + 1);
    for (std::int64_t i = 0; i < length; ++i) batch.positions.select(0, row).select(0, first + i).fill_(i);
    return length;
  }
  Task task_;
  std::int64_t count_, turn_ = 0, at_ = 0;
  bool ends_ = true;
};

// The documents whose labels count.
std::set<std::int64_t> learnt(const Batch& batch) {
  std::set<std::int64_t> found;
  for (std::int64_t row = 0; row < batch.tokens.size(0); ++row)
    for (std::int64_t i = 0; i < batch.tokens.size(1); ++i) {
      const auto label =
          batch.task == Task::Classification ? batch.labels.select(0, row) : batch.labels.select(0, row).select(0, i);
      const auto token = batch.tokens.select(0, row).select(0, i).item<std::int64_t>();
      if (label.item<std::int64_t>() >= 0 && token > 0) found.insert(token);
    }
  return found;
}
std::set<std::int64_t> held(const HeldOut& part) {
  std::set<std::int64_t> found;
  for (const auto& batch : part.batches()) found.merge(learnt(batch));
  return found;
}

}  // namespace

TEST_CASE("what is held out is never learnt, whatever the order, and all else is") {
  for (auto task : {Task::Language, Task::Preference, Task::Classification}) {
    Silo silo(task, 40);
    const HeldOut part(silo, 0.3, 7, 1000, 6);
    const auto out = held(part);
    const std::size_t each = task == Task::Preference ? 2 : 1;
    CHECK(out.size() == each * part.examples());
    CHECK(part.examples() > 4);
    CHECK(part.examples() < 24);
    std::set<std::int64_t> in;
    std::int64_t documents = 0, given = 0;
    for (std::int64_t order : {1, 17}) {
      silo.shuffle(static_cast<std::uint64_t>(order));
      for (int i = 0; i < 14; ++i) {
        const auto whole = silo.next(6);
        given += whole->documents;
        const auto rest = part.rest_of(*whole);
        if (!rest) continue;
        documents += rest->documents;
        CHECK(rest->counted == rest->labels.ge(0).sum().item<std::int64_t>());
        CHECK(rest->counted > 0);
        CHECK(rest->bytes == 10 * rest->counted);
        if (task == Task::Preference) CHECK(rest->tokens.size(0) % 2 == 0);
        in.merge(learnt(*rest));
      }
    }
    for (auto document : out) CHECK_FALSE(in.contains(document));
    CHECK(in.size() + out.size() == each * 40);
    CHECK(documents < given);
  }
}

TEST_CASE("the part is a function of the seed, and follows the fraction") {
  Silo silo(Task::Language, 600);
  const auto of = [&](double fraction, std::uint64_t seed) { return held(HeldOut(silo, fraction, seed, 10'000, 5)); };
  CHECK(of(0.1, 3) == of(0.1, 3));
  CHECK(of(0.1, 3) != of(0.1, 4));
  const auto tenth = of(0.1, 3), half = of(0.5, 3);
  CHECK(tenth.size() > 30);
  CHECK(tenth.size() < 90);
  CHECK(std::ranges::includes(half, tenth));
  CHECK(half.size() > 240);
  CHECK(half.size() < 360);
}

TEST_CASE("held-out batches hold whole examples, each with its own positions") {
  Silo silo(Task::Language, 30);
  const HeldOut part(silo, 0.4, 5, 1000, 4);
  for (const auto& batch : part.batches()) {
    CHECK(batch.tokens.size(0) <= 4);
    CHECK(batch.documents == batch.tokens.size(0));
    for (std::int64_t row = 0; row < batch.tokens.size(0); ++row) {
      const auto tokens = batch.tokens.select(0, row), labels = batch.labels.select(0, row);
      const auto document = tokens.select(0, 0).item<std::int64_t>();
      const auto length = 3 + (document - 1) % 5;
      CHECK(tokens.narrow(0, 0, length).eq(document).all().item<bool>());
      CHECK(labels.ge(0).sum().item<std::int64_t>() == length);
      CHECK(batch.segments.select(0, row).ge(0).sum().item<std::int64_t>() == length);
      CHECK(batch.positions.select(0, row).select(0, length - 1).item<std::int64_t>() == length - 1);
    }
  }
}

TEST_CASE("no more than asked for is kept, and a small silo gives one example") {
  Silo large(Task::Language, 500), small(Task::Language, 3), single(Task::Language, 1);
  CHECK(HeldOut(large, 0.5, 1, 20, 8).examples() == 20);
  CHECK(HeldOut(small, 0.001, 1, 20, 8).examples() == 1);
  CHECK_THROWS_WITH(HeldOut(single, 0.1, 1, 20, 8), Contains("leaves nothing to train on"));
}
