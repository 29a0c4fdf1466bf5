#include "poisson.hpp"

#include <cmath>
#include <random>

#include "test.hpp"

using namespace hansa;
using poisson::Params, poisson::Poisson;

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

TEST_CASE("poisson draws each node independently: the cohort's size is binomial") {
  SeededDraw rng;
  Poisson selector(Params{0.3, {}});
  const auto nodes = population(20);
  double mean = 0, square = 0, first_two = 0;
  const int draws = 20000;
  for (int i = 0; i < draws; ++i) {
    const auto chosen = selector.choose(nodes, rng);
    CHECK(std::is_sorted(chosen.begin(), chosen.end()));
    const auto size = static_cast<double>(chosen.size());
    mean += size / draws;
    square += size * size / draws;
    first_two += chosen.size() >= 2 && chosen[0] == 100 && chosen[1] == 101 ? 1.0 / draws : 0;
  }
  CHECK(mean == Approx(6).margin(6 * std::sqrt(4.2 / draws)));
  CHECK(square - mean * mean == Approx(4.2).epsilon(0.06));
  CHECK(first_two == Approx(0.09).margin(6 * std::sqrt(0.09 * 0.91 / draws)));
}

TEST_CASE("rate and expected cohort follow from each other") {
  CHECK(Poisson(Params{0.25, {}}).sampling_rate(8) == 0.25);
  CHECK(Poisson(Params{0.25, {}}).expected_cohort(8) == 2);
  CHECK(Poisson(Params{{}, 10.0}).sampling_rate(1000) == 0.01);
  CHECK(Poisson(Params{{}, 10.0}).expected_cohort(1000) == Approx(10));
  CHECK(Poisson(Params{{}, 10.0}).sampling_rate(5) == 1);
  CHECK(Poisson(Params{{}, 10.0}).expected_cohort(5) == 5);
  CHECK(Poisson(Params{{}, 10.0}).expected_cohort(0) == 0);
}

TEST_CASE("rate 1 draws everyone, and an empty cohort is possible") {
  SeededDraw rng;
  CHECK(Poisson(Params{1.0, {}}).choose(population(50), rng).size() == 50);
  CHECK(Poisson(Params{1e-12, {}}).choose(population(50), rng).empty());
}
