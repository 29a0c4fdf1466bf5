// Notices when a training has gone wrong: a loss that is not finite, or one that has exploded. Throws Error with the step, the
// loss, where it began and what to lower. Training thread only.
#pragma once
#include <deque>

#include "train/loop.hpp"

namespace hansa::train {

class Guard {
 public:
  explicit Guard(const Params& params) : params_(params) {}
  // The mean loss per unit of a step, or NaN where already a batch of it was not finite. Steps count from 1.
  void see(std::uint64_t step, double loss);
  // The same, on the last batch after the last step.
  void see_last(std::uint64_t step, double loss);
  bool watches() const { return params_.diverged_above > 0; }
  // A gradient or a held-out loss that is not finite.
  [[noreturn]] void refuse(std::uint64_t step, const std::string& what, double value) const;

 private:
  // A single hard batch is no divergence: the mean of so many steps counts.
  static constexpr std::size_t kSteps = 5;
  double bound() const;
  void require_below(std::uint64_t step, double loss, const char* of) const;
  const Params& params_;
  std::optional<double> start_;
  std::deque<double> last_;
};

}  // namespace hansa::train
