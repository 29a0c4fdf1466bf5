#include "gaussian.hpp"

#include <cmath>
#include <limits>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "tensor/secure_rng.hpp"
#include "test.hpp"

using namespace hansa;
using gaussian::Gaussian, gaussian::Params;

TEST_CASE("gaussian noises the sum with multiplier times sensitivity") {
  Gaussian privacy(Params{0.5, 1.5});
  SecureNoise rng;
  privacy.begin_release({}, {0.8, 1.6, 10});
  auto sum = at::full({500, 400}, 3.0, at::TensorOptions().dtype(at::kFloat));
  privacy.central("adapter", 0, sum, rng);
  double mean = 0, square = 0;
  const double n = static_cast<double>(sum.numel()), sigma = 1.5 * 0.8;
  for (std::int64_t i = 0; i < sum.numel(); ++i) {
    const double noise = sum.const_data_ptr<float>()[i] - 3.0;
    mean += noise / n;
    square += noise * noise / n;
  }
  CHECK(std::abs(mean) < 6.2 * sigma / std::sqrt(n));
  CHECK(square == Approx(sigma * sigma).epsilon(6.2 * std::sqrt(2 / n)));
}

TEST_CASE("the event is what was done, at the rate and adjacency of the plan") {
  const Gaussian privacy(Params{0.5, 1.5});
  RoundPlan plan;
  CHECK(privacy.clip_bound(plan) == 0.5);
  plan.sampling_rate = 0.1;
  CHECK(privacy.event(plan) == DpEvent{"gaussian", 1.5, 0.1, 1, Adjacency::AddRemove});
  plan.sampling_rate = 1;
  plan.adjacency = Adjacency::ZeroOut;
  CHECK(privacy.event(plan) == DpEvent{"gaussian", 1.5, 1, 1, Adjacency::ZeroOut});
}

TEST_CASE("an empty cohort's zero sum is noised like any other, and no two releases get the same noise") {
  Gaussian privacy(Params{1, 1});
  SecureNoise rng;
  at::Tensor sums[2] = {at::zeros({64}), at::zeros({64})};
  for (auto& sum : sums) {
    privacy.begin_release({}, {1, 1, 4});
    privacy.central("adapter", 0, sum, rng);
    privacy.end_release();
  }
  int alike = 0;
  for (int i = 0; i < 64; ++i) {
    CHECK(sums[0].const_data_ptr<float>()[i] != 0);
    alike += sums[0].const_data_ptr<float>()[i] == sums[1].const_data_ptr<float>()[i];
  }
  CHECK(alike < 3);
}

TEST_CASE("noise outside a release and without a sensitivity is refused") {
  Gaussian privacy(Params{});
  SecureNoise rng;
  auto sum = at::zeros({4});
  CHECK_THROWS_AS(privacy.central("adapter", 0, sum, rng), std::logic_error);
  privacy.begin_release({}, {1, 1, 1});
  privacy.end_release();
  CHECK_THROWS_AS(privacy.central("adapter", 0, sum, rng), std::logic_error);
  CHECK_THROWS_AS(privacy.begin_release({}, {0, 1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(privacy.begin_release({}, {std::numeric_limits<double>::infinity(), 1, 1}), std::invalid_argument);
}
