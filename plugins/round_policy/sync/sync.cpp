#include "sync.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <hansa/plugin.hpp>

namespace hansa::sync {

std::uint64_t traits(const Params& params) {
  // With a deadline the cohort that counts depends on who was fast enough; without one everyone is waited for.
  return params.deadline ? HANSA_TRAIT_CLOSES_EARLY | HANSA_TRAIT_STATELESS : HANSA_TRAIT_STATELESS;
}

double Sync::deadline_seconds() const {
  return params_.deadline ? params_.deadline->value : std::numeric_limits<double>::infinity();
}

std::size_t Sync::needed(std::size_t cohort) const {
  const auto share =
      static_cast<std::size_t>(std::ceil(params_.min_fraction * static_cast<double>(cohort) - 1e-9));  // 0.1 · 30 is 3
  return std::min(cohort, std::max(static_cast<std::size_t>(params_.min_cohort), share));
}

Next Sync::decide(const RoundStatus& status) {
  const bool all_settled = status.running == 0;
  if (!all_settled && status.seconds < deadline_seconds()) return Next::Wait;
  return status.accepted >= needed(status.cohort) ? Next::Close : Next::Abort;
}

}  // namespace hansa::sync

HANSA_PLUGIN(org_hansa_sync, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<sync::Sync, sync::Params>("sync", "Waits for the whole cohort, at most until a deadline.")
      .doc(
          "Closes when every node of the cohort has delivered or failed, or at the deadline, if enough updates were "
          "accepted; "
          "else the attempt is aborted and the round tried again. Enough: the larger of min_cohort and min_fraction of "
          "the "
          "cohort, never more than the cohort.")
      .maturity(Maturity::Beta)
      .traits([](const sync::Params& p) { return sync::traits(p); })
      .param(&sync::Params::min_cohort, "min_cohort", "Fewest accepted updates.", at_least(0), "nodes")
      .param(&sync::Params::min_fraction, "min_fraction", "Smallest accepted share of the cohort.", range(0, 1),
             "fraction")
      .param(&sync::Params::deadline, "deadline", "Longest time to wait; without one, as long as it takes.",
             more_than(0));
}
