// Cohort draws that repeat with the run's seed: where no privacy is amplified by the draw. Under amplification use SecureDraw.
#pragma once
#include <hansa/selection.hpp>

#include "base/rng.hpp"

namespace hansa {

class SeededDraw final : public DrawRng {
 public:
  explicit SeededDraw(std::uint64_t seed) : rng_(seed) {}
  double uniform() override { return rng_.uniform(); }

 private:
  SplitMix64 rng_;
};

}  // namespace hansa
