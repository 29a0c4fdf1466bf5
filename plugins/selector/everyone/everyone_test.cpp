#include "everyone.hpp"

#include "test.hpp"

using namespace hansa;

namespace {

struct NoDraw final : DrawRng {
  double uniform() override { throw std::logic_error("everyone must not draw"); }
};

}  // namespace

TEST_CASE("everyone is everyone, in order, without a draw") {
  everyone::Everyone selector;
  NoDraw rng;
  std::vector<NodeFacts> nodes(3);
  for (NodeId i = 0; i < 3; ++i) nodes[i].node = 10 * i + 1;
  CHECK(selector.choose(nodes, rng) == std::vector<NodeId>{1, 11, 21});
  CHECK(selector.choose({}, rng).empty());
  CHECK(selector.expected_cohort(3) == 3);
  CHECK(selector.sampling_rate(3) == 1);
}
