#include "train/guard.hpp"

#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::train {

namespace {

std::string remedy(const Params& params) {
  return fmt::format(
      "nothing is sent. Lower learning_rate (now {}), add warmup_steps (now {}) or lower max_grad_norm (now {})",
      params.learning_rate, params.warmup_steps, params.max_grad_norm);
}

}  // namespace

void Guard::refuse(std::uint64_t step, const std::string& what, double value) const {
  throw Error(fmt::format("training diverged: {} of step {} is {}{}; {}", what, step, value,
                          start_ ? fmt::format(", the loss began at {:.4g}", *start_) : std::string(),
                          remedy(params_)));
}

// Below one nat a factor says little: a few hard labels make it.
double Guard::bound() const { return params_.diverged_above * std::max(*start_, 1.0); }

void Guard::require_below(std::uint64_t step, double loss, const char* of) const {
  if (!watches() || loss <= bound()) return;
  throw Error(
      fmt::format("training diverged: after step {} the loss is {:.4g} ({}), it began at {:.4g}, and above {:.4g} "
                  "(diverged_above = {}) "
                  "no good is expected; {}",
                  step, loss, of, *start_, bound(), params_.diverged_above, remedy(params_)));
}

void Guard::see(std::uint64_t step, double loss) {
  if (!std::isfinite(loss)) refuse(step, "the loss", loss);
  if (!start_) start_ = loss;
  last_.push_back(loss);
  if (last_.size() > kSteps) last_.pop_front();
  require_below(step, std::accumulate(last_.begin(), last_.end(), 0.0) / static_cast<double>(last_.size()),
                "mean of the last steps");
}

void Guard::see_last(std::uint64_t step, double loss) {
  if (!std::isfinite(loss)) refuse(step, "the loss after the move", loss);
  require_below(step, loss, "on the last batch");
}

}  // namespace hansa::train
