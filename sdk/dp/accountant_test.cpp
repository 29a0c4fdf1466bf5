#include "dp/accountant.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "test.hpp"

using namespace hansa;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double epsilon_of(double sigma, double q, std::uint64_t steps, double delta) {
  const DpEvent event{"gaussian", sigma, q, steps};
  return dp::epsilon({&event, 1}, delta);
}

// ln of the moment straight from its definition: E over N(0, s²) of ((1-q) + q e^((2z-1)/(2s²)))^order, by Simpson's rule.
double divergence_by_integration(double sigma, double q, double order) {
  const double from = -12 * sigma, to = order + 12 * sigma;
  const int steps = 40000;
  const double h = (to - from) / steps;
  long double sum = 0;
  for (int i = 0; i <= steps; ++i) {
    const double z = from + i * h;
    const double ratio = std::log((1 - q) + q * std::exp((2 * z - 1) / (2 * sigma * sigma)));
    const double density = -z * z / (2 * sigma * sigma) - std::log(sigma) - 0.5 * std::log(2 * M_PI);
    sum += std::exp(static_cast<long double>(order * ratio + density)) * (i == 0 || i == steps ? 1 : i % 2 ? 4 : 2);
  }
  return static_cast<double>(std::log(sum * h / 3)) / (order - 1);
}

}  // namespace

TEST_CASE("epsilon agrees with Google's dp_accounting within a thousandth") {
  // RdpAccountant of dp_accounting, add/remove adjacency, default orders, Poisson-sampled Gaussian composed `steps` times.
  struct Row {
    double sigma, q;
    std::uint64_t steps;
    double delta, epsilon;
  };
  const Row rows[] = {
      {1.5, 0.04, 2250, 1e-05, 7.329334702381698},    {1.1, 0.004266666667, 14062, 1e-05, 2.5965558697943036},
      {1.0, 0.1, 100, 1e-05, 7.903850223578232},      {1.0, 1, 1, 1e-05, 4.728507067217623},
      {0.7, 0.001, 10000, 1e-06, 2.4730399056428074}, {1.0, 0.02, 200, 1e-05, 2.229843716160299},
      {3.0, 0.25, 300, 1e-06, 8.445757848699177},     {0.6, 0.01, 500, 1e-05, 6.952161977700438},
      {1.0, 0.001, 1000, 1e-07, 1.061589906765417},   {1.13, 0.01, 1600, 1e-06, 2.298622551345149},
  };
  for (const auto& row : rows) {
    INFO("sigma " << row.sigma << " q " << row.q << " steps " << row.steps);
    const double epsilon = epsilon_of(row.sigma, row.q, row.steps, row.delta);
    CHECK(epsilon == Approx(row.epsilon).epsilon(1e-3));  // theirs bounds fractional orders a little less tightly
    CHECK(epsilon <= row.epsilon * (1 + 1e-9));           // ours is exact there: see the integration below
  }
}

TEST_CASE("the divergence is what integrating its definition gives") {
  for (double q : {0.001, 0.05, 0.4, 0.5, 0.9})
    for (double sigma : {0.6, 1.0, 4.0})
      for (double order : {1.1, 1.5, 2.0, 2.5, 3.0, 5.3, 9.9, 16.0}) {
        INFO("q " << q << " sigma " << sigma << " order " << order);
        const double want = divergence_by_integration(sigma, q, order);
        CHECK(dp::renyi_divergence(sigma, q, order) == Approx(want).epsilon(1e-6).margin(1e-12));
      }
}

TEST_CASE("integer and fractional series meet") {
  for (double order : {2.0, 3.0, 7.0})
    for (double nudge : {-1e-9, 1e-9})
      CHECK(dp::renyi_divergence(1.2, 0.07, order + nudge) ==
            Approx(dp::renyi_divergence(1.2, 0.07, order)).epsilon(1e-6));
}

TEST_CASE("a tiny divergence keeps its digits") {
  const double q = 1e-6, sigma = 5;  // to first order q² order (e^(1/sigma²) - 1) / 2
  CHECK(dp::renyi_divergence(sigma, q, 8) == Approx(q * q * 8 * std::expm1(1 / (sigma * sigma)) / 2).epsilon(1e-4));
}

TEST_CASE("rate 1 is the plain Gaussian, rate 0 and zero steps cost nothing, no noise costs infinity") {
  CHECK(dp::renyi_divergence(2, 1, 5) == Approx(5.0 / 8));
  CHECK(epsilon_of(1, 0, 100, 1e-5) == 0);
  CHECK(epsilon_of(0, 0, 100, 1e-5) == 0);
  CHECK(epsilon_of(1, 0.1, 0, 1e-5) == 0);
  CHECK(epsilon_of(0, 0.1, 1, 1e-5) == kInfinity);
  CHECK(dp::epsilon({}, 1e-5) == 0);
  const DpEvent nothing{};
  CHECK(dp::epsilon({&nothing, 1}, 0) == 0);
}

TEST_CASE("a rate just below 1 costs what rate 1 costs") {
  CHECK(epsilon_of(2, 0.9999, 10, 1e-5) == Approx(epsilon_of(2, 1, 10, 1e-5)).epsilon(1e-2));
}

TEST_CASE("delta at its ends") {
  CHECK(epsilon_of(1, 0.1, 10, 0) == kInfinity);
  CHECK(epsilon_of(1, 0.1, 10, 1) == 0);
  CHECK(epsilon_of(1, 0.1, 10, 1e-300) < kInfinity);
  CHECK_THROWS_AS(epsilon_of(1, 0.1, 10, -1e-9), std::invalid_argument);
  CHECK_THROWS_AS(epsilon_of(1, 0.1, 10, 1.1), std::invalid_argument);
  CHECK_THROWS_AS(epsilon_of(1, 0.1, 10, std::nan("")), std::invalid_argument);
}

TEST_CASE("nonsense is refused with a sentence") {
  CHECK_THROWS_WITH(epsilon_of(-1, 0.1, 10, 1e-5), Catch::Contains("noise multiplier"));
  CHECK_THROWS_WITH(epsilon_of(kInfinity, 0.1, 10, 1e-5), Catch::Contains("noise multiplier"));
  CHECK_THROWS_WITH(epsilon_of(std::nan(""), 0.1, 10, 1e-5), Catch::Contains("noise multiplier"));
  CHECK_THROWS_WITH(epsilon_of(1, 1.1, 10, 1e-5), Catch::Contains("sampling rate"));
  CHECK_THROWS_WITH(epsilon_of(1, std::nan(""), 10, 1e-5), Catch::Contains("sampling rate"));
  CHECK_THROWS_WITH(dp::renyi_divergence(1, 0.1, 1), Catch::Contains("order"));
  const DpEvent laplace{"laplace", 1};
  CHECK_THROWS_WITH(dp::epsilon({&laplace, 1}, 1e-5), Catch::Contains("'laplace' is unknown"));
  for (auto adjacency : {Adjacency::ZeroOut, Adjacency::ReplaceOne}) {
    const DpEvent amplified{"gaussian", 1, 0.1, 1, adjacency}, plain{"gaussian", 1, 1, 1, adjacency};
    CHECK_THROWS_WITH(dp::epsilon({&amplified, 1}, 1e-5), Catch::Contains("add/remove"));
    CHECK(dp::epsilon({&plain, 1}, 1e-5) == Approx(epsilon_of(1, 1, 1, 1e-5)));
  }
}

TEST_CASE("different events compose, alike ones in any split") {
  const std::vector<DpEvent> split{
      {"gaussian", 1, 0.05, 30}, {"", 0}, {"gaussian", 2, 1, 2}, {"gaussian", 1, 0.05, 70}};
  const std::vector<DpEvent> joined{{"gaussian", 2, 1, 2}, {"gaussian", 1, 0.05, 100}};
  CHECK(dp::epsilon(split, 1e-5) == Approx(dp::epsilon(joined, 1e-5)).epsilon(1e-12));
  CHECK(dp::epsilon(joined, 1e-5) > epsilon_of(1, 0.05, 100, 1e-5));
  double by_hand = kInfinity;  // straight from the definition
  for (double order : dp::orders()) {
    const double divergence = 100 * dp::renyi_divergence(1, 0.05, order) + 2 * order / 8;
    by_hand = std::min(by_hand,
                       divergence + std::log((order - 1) / order) - (std::log(1e-5) + std::log(order)) / (order - 1));
  }
  CHECK(dp::epsilon(joined, 1e-5) == Approx(by_hand).epsilon(1e-12));
}

TEST_CASE("epsilon falls with noise and grows with rate, steps and smaller delta") {
  for (double sigma : {0.3, 0.8, 2.0, 20.0}) {
    CHECK(epsilon_of(sigma * 1.1, 0.1, 100, 1e-5) <= epsilon_of(sigma, 0.1, 100, 1e-5));
    CHECK(epsilon_of(sigma, 0.11, 100, 1e-5) >= epsilon_of(sigma, 0.1, 100, 1e-5));
    CHECK(epsilon_of(sigma, 0.1, 101, 1e-5) >= epsilon_of(sigma, 0.1, 100, 1e-5));
    CHECK(epsilon_of(sigma, 0.1, 100, 1e-6) >= epsilon_of(sigma, 0.1, 100, 1e-5));
  }
  CHECK(epsilon_of(1e-3, 0.5, 1000, 1e-5) > 1e6);
}

TEST_CASE("the noise multiplier found keeps within epsilon, and a little less does not") {
  for (double target : {0.5, 3.0, 8.0})
    for (double q : {0.01, 0.2, 1.0}) {
      const double sigma = dp::noise_multiplier_for(target, q, 200, 1e-5);
      CHECK(epsilon_of(sigma, q, 200, 1e-5) <= target);
      CHECK(epsilon_of(sigma * 0.999, q, 200, 1e-5) > target);
    }
  CHECK(dp::noise_multiplier_for(1, 0, 200, 1e-5) == 0);
  CHECK(dp::noise_multiplier_for(1, 0.1, 0, 1e-5) == 0);
  CHECK_THROWS_AS(dp::noise_multiplier_for(0, 0.1, 200, 1e-5), std::invalid_argument);
  CHECK_THROWS_AS(dp::noise_multiplier_for(1, 0.1, 200, 0), std::invalid_argument);
  CHECK_THROWS_AS(dp::noise_multiplier_for(1, 2, 200, 1e-5), std::invalid_argument);
}
