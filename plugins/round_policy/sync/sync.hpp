// Round policy "sync": waits until every node of the cohort has delivered or failed; at the deadline takes what is there.
// Too few accepted updates abort the attempt. A cohort smaller than min_cohort needs all of itself, so an empty (Poisson)
// cohort closes at once: under DP such a round is noised and charged like any other.
#pragma once
#include <optional>

#include <hansa/schema.hpp>
#include <hansa/selection.hpp>

namespace hansa::sync {

struct Params {
  std::int64_t min_cohort = 1;
  double min_fraction = 0.5;
  std::optional<Seconds> deadline;
};
std::uint64_t traits(const Params&);

class Sync final : public Stateless<RoundPolicy> {
 public:
  explicit Sync(Params params) : params_(params) {}
  Next decide(const RoundStatus&) override;
  double deadline_seconds() const override;

 private:
  std::size_t needed(std::size_t cohort) const;
  Params params_;
};

}  // namespace hansa::sync
