#include "uniform.hpp"

#include <map>
#include <random>

#include "test.hpp"

using namespace hansa;
using uniform::Params, uniform::Uniform;

namespace {

struct SeededDraw final : DrawRng {
  std::mt19937_64 engine{7};
  double uniform() override { return static_cast<double>(engine() >> 11) * 0x1.0p-53; }
};
std::vector<NodeFacts> population(std::size_t count) {
  std::vector<NodeFacts> nodes(count);
  for (std::size_t i = 0; i < count; ++i) nodes[i].node = 100 + i;
  return nodes;
}

}  // namespace

TEST_CASE("uniform draws exactly the cohort, ascending, or all when there are fewer") {
  SeededDraw rng;
  for (std::size_t count : {0, 1, 3, 4, 5, 100}) {
    Uniform selector(Params{4});
    const auto chosen = selector.choose(population(count), rng);
    CHECK(chosen.size() == std::min<std::size_t>(4, count));
    CHECK(std::is_sorted(chosen.begin(), chosen.end()));
    CHECK(std::adjacent_find(chosen.begin(), chosen.end()) == chosen.end());
    CHECK(selector.expected_cohort(count) == static_cast<double>(chosen.size()));
    CHECK(selector.sampling_rate(count) == 1);
  }
}

TEST_CASE("every pair is drawn equally often") {
  SeededDraw rng;
  Uniform selector(Params{2});
  const auto nodes = population(5);
  std::map<std::vector<NodeId>, int> seen;
  for (int i = 0; i < 20000; ++i) ++seen[selector.choose(nodes, rng)];
  REQUIRE(seen.size() == 10);
  for (const auto& [pair, count] : seen) CHECK(std::abs(count - 2000) < 220);  // 5 standard deviations
}
