// A part of a silo that is not trained on. Which examples belong to it is a function of (seed, what the example says) alone,
// so it is the same part in every pass and every round, and an example that stands in a silo twice is on one side. An example
// is a document or a piece of one as it stands in a row; both answers of a pair are one example. Training thread only.
#pragma once
#include <optional>
#include <vector>

#include <hansa/data_source.hpp>

namespace hansa::train {

class HeldOut {
 public:
  // Goes through the silo in file order until `most` examples are found; leaves the data source in that pass, to be shuffled
  // again. Where the fraction is so small that it leaves none, one example is held out. Throws Error when the silo has one
  // example only.
  HeldOut(DataSource&, double fraction, std::uint64_t seed, std::int64_t most, std::int64_t rows);

  std::span<const Batch> batches() const { return batches_; }  // of `rows` rows
  std::size_t examples() const { return examples_; }
  // What is left of a batch for training: labels of held-out examples count no more, and rows without a label are left out.
  // Nothing when nothing is left.
  std::optional<Batch> rest_of(const Batch&) const;

 private:
  std::uint64_t threshold_ = 0, seed_;
  std::vector<Batch> batches_;
  std::size_t examples_ = 0;
};

}  // namespace hansa::train
