// Statistical tests of a generator that cannot be seeded: every bound fails a right generator less than once in 1e9 runs.
#include "tensor/secure_rng.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

std::vector<float> normals(std::int64_t count, double sigma = 1) {
  SecureNoise noise;
  const auto tensor = noise.gaussian({count}, sigma);
  const float* from = tensor.const_data_ptr<float>();
  return {from, from + count};
}

template <class Cdf>
double kolmogorov_distance(std::vector<float> sample, Cdf cdf) {
  std::sort(sample.begin(), sample.end());
  double worst = 0;
  const double n = static_cast<double>(sample.size());
  for (std::size_t i = 0; i < sample.size(); ++i) {
    const double p = cdf(sample[i]);
    worst = std::max({worst, p - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - p});
  }
  return worst;
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

}  // namespace

TEST_CASE("noise has the moments of a standard normal") {
  const auto sample = normals(1'000'001);  // odd: the half pair at the end too
  double moments[5] = {};
  for (double x : sample)
    for (int k = 1; k <= 4; ++k) moments[k] += std::pow(x, k) / static_cast<double>(sample.size());
  const double se = 6.2 / std::sqrt(1e6);  // 6.2 standard errors
  CHECK(std::abs(moments[1]) < se);
  CHECK(std::abs(moments[2] - 1) < se * std::sqrt(2.0));
  CHECK(std::abs(moments[3]) < se * std::sqrt(15.0));
  CHECK(std::abs(moments[4] - 3) < se * std::sqrt(96.0));
}

TEST_CASE("noise passes the Kolmogorov-Smirnov test against the normal law") {
  const double bound = std::sqrt(std::log(2 / 1e-9) / 2 / 1e6);  // Massart's inequality
  CHECK(kolmogorov_distance(normals(1'000'000), normal_cdf) < bound);
  CHECK(kolmogorov_distance(normals(1'000'000, 7.5), [](double x) { return normal_cdf(x / 7.5); }) < bound);
  CHECK(kolmogorov_distance(normals(1'000'000), [](double x) { return normal_cdf(x / 1.02); }) >
        bound / 4);  // it can tell
}

TEST_CASE("neighbouring values are uncorrelated, and no two streams are alike") {
  const auto sample = normals(1'000'000);
  double within = 0, across = 0;
  for (std::size_t i = 0; i + 2 < sample.size(); i += 2) {
    within += static_cast<double>(sample[i]) * sample[i + 1];
    across += static_cast<double>(sample[i + 1]) * sample[i + 2];
  }
  CHECK(std::abs(within) < 6.2 * std::sqrt(5e5));
  CHECK(std::abs(across) < 6.2 * std::sqrt(5e5));
  std::set<std::uint64_t> firsts;
  for (int i = 0; i < 100; ++i) firsts.insert(SecureKeystream().next());
  CHECK(firsts.size() == 100);
}

TEST_CASE("draws are uniform") {
  SecureDraw draw;
  std::vector<float> sample(1'000'000);
  for (auto& x : sample) x = static_cast<float>(draw.uniform());
  CHECK(kolmogorov_distance(sample, [](double x) { return x; }) < std::sqrt(std::log(2 / 1e-9) / 2 / 1e6) + 1e-6);
}

TEST_CASE("sigma zero is no noise, a senseless sigma is refused") {
  SecureNoise noise;
  CHECK(noise.gaussian({3, 5}, 0).sizes() == at::IntArrayRef({3, 5}));
  for (float x : normals(9, 0)) CHECK(x == 0);
  CHECK(noise.gaussian({0}, 1).numel() == 0);
  CHECK_THROWS_AS(noise.gaussian({3}, -1), Error);
  CHECK_THROWS_AS(noise.gaussian({3}, std::numeric_limits<double>::quiet_NaN()), Error);
  CHECK_THROWS_AS(noise.gaussian({3}, std::numeric_limits<double>::infinity()), Error);
}
