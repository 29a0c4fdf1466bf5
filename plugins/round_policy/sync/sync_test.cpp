#include "sync.hpp"

#include <limits>

#include <hansa/plugin.h>

#include "test.hpp"

using namespace hansa;
using sync::Params, sync::Sync;

namespace {

RoundStatus status(std::size_t accepted, std::size_t running, std::size_t refused, double seconds) {
  return {accepted + running + refused, accepted, running, refused, seconds};
}

}  // namespace

TEST_CASE("without a deadline sync waits for everyone") {
  Sync policy(Params{});
  CHECK(policy.deadline_seconds() == std::numeric_limits<double>::infinity());
  CHECK(policy.decide(status(9, 1, 0, 1e9)) == Next::Wait);
  CHECK(policy.decide(status(10, 0, 0, 1)) == Next::Close);
  CHECK(policy.decide(status(5, 0, 5, 1)) == Next::Close);
  CHECK(policy.decide(status(4, 0, 6, 1)) == Next::Abort);
}

TEST_CASE("at the deadline sync closes with enough and aborts with too few") {
  Sync policy(Params{3, 0, Seconds{60}});
  CHECK(policy.deadline_seconds() == 60);
  CHECK(policy.decide(status(9, 1, 0, 59.9)) == Next::Wait);
  CHECK(policy.decide(status(3, 7, 0, 60)) == Next::Close);
  CHECK(policy.decide(status(2, 8, 0, 60)) == Next::Abort);
  CHECK(policy.decide(status(10, 0, 0, 5)) == Next::Close);
}

TEST_CASE("enough is the larger of count and fraction, never more than the cohort") {
  CHECK(Sync(Params{4, 0.1, {}}).decide(status(3, 0, 17, 1)) == Next::Abort);
  CHECK(Sync(Params{1, 0.1, {}}).decide(status(3, 0, 27, 1)) == Next::Close);
  CHECK(Sync(Params{1, 0.1, {}}).decide(status(3, 0, 28, 1)) == Next::Abort);
  CHECK(Sync(Params{4, 1, {}}).decide(status(2, 0, 0, 1)) == Next::Close);
  CHECK(Sync(Params{4, 1, {}}).decide(status(2, 0, 1, 1)) == Next::Abort);
  CHECK(Sync(Params{0, 0, {}}).decide(status(0, 0, 3, 1)) == Next::Close);
}

TEST_CASE("an empty cohort closes at once") {
  CHECK(Sync(Params{}).decide(status(0, 0, 0, 0)) == Next::Close);
  CHECK(Sync(Params{5, 1, Seconds{60}}).decide(status(0, 0, 0, 0)) == Next::Close);
}

TEST_CASE("only a deadline makes sync close early") {
  CHECK((sync::traits({}) & HANSA_TRAIT_CLOSES_EARLY) == 0);
  CHECK((sync::traits({1, 0.5, Seconds{60}}) & HANSA_TRAIT_CLOSES_EARLY) != 0);
}
