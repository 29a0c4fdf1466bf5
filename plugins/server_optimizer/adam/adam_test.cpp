#include "adam.hpp"

#include <cmath>
#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "test.hpp"

using namespace hansa;
using adam::Adam, adam::Params, adam::SecondMoment;

namespace {

at::Tensor random_tensor(std::int64_t count, std::uint64_t seed, float sigma = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0, sigma);
  auto made = at::empty({count}, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < count; ++i) made.mutable_data_ptr<float>()[i] = normal(engine);
  return made;
}

std::vector<at::Tensor> fresh_state(const Adam& optimizer, std::int64_t count) {
  std::vector<at::Tensor> state;
  for (const auto& spec : optimizer.state({"w", DType::f32, {count}})) state.push_back(at::zeros(spec.shape));
  return state;
}

}  // namespace

TEST_CASE("adam and yogi follow the paper's update, written naively in double") {
  for (auto moment : {SecondMoment::Adam, SecondMoment::Yogi}) {
    const Params params{0.05, 0.8, 0.95, 1e-2, moment};
    Adam optimizer(params);
    auto parameter = random_tensor(29, 1);
    auto state = fresh_state(optimizer, 29);
    std::vector<double> x(29), m(29), v(29);
    for (int i = 0; i < 29; ++i) x[i] = parameter.const_data_ptr<float>()[i];
    for (std::uint64_t round = 1; round <= 20; ++round) {
      const auto delta = random_tensor(29, 50 + round, 0.1f);
      optimizer.begin_step(round);
      optimizer.step("adapter", 3, parameter, delta, state);
      for (int i = 0; i < 29; ++i) {
        const double d = delta.const_data_ptr<float>()[i], square = d * d;
        m[i] = 0.8 * m[i] + 0.2 * d;
        if (moment == SecondMoment::Adam)
          v[i] = 0.95 * v[i] + 0.05 * square;
        else
          v[i] = v[i] - 0.05 * square * (v[i] > square ? 1 : v[i] < square ? -1 : 0);
        x[i] += 0.05 * m[i] / (std::sqrt(v[i]) + 1e-2);
        CHECK(parameter.const_data_ptr<float>()[i] == Approx(x[i]).margin(1e-4));
      }
    }
  }
}

TEST_CASE("adam's first step is close to the learning rate in each direction, and zero delta moves nothing") {
  Adam optimizer(Params{0.01, 0.9, 0.99, 1e-9, SecondMoment::Adam});
  auto parameter = at::zeros({3});
  auto state = fresh_state(optimizer, 3);
  auto delta = at::zeros({3});
  delta.mutable_data_ptr<float>()[0] = 5;
  delta.mutable_data_ptr<float>()[1] = -0.2f;
  optimizer.step("adapter", 0, parameter, delta, state);
  CHECK(parameter.const_data_ptr<float>()[0] == Approx(0.01).epsilon(1e-4));
  CHECK(parameter.const_data_ptr<float>()[1] == Approx(-0.01).epsilon(1e-4));
  CHECK(parameter.const_data_ptr<float>()[2] == 0);
}

TEST_CASE("adam refuses tensors that do not belong together") {
  Adam optimizer(Params{});
  auto parameter = at::zeros({3});
  auto state = fresh_state(optimizer, 3);
  CHECK_THROWS_AS(optimizer.step("adapter", 0, parameter, at::zeros({4}), state), std::invalid_argument);
  CHECK_THROWS_AS(optimizer.step("adapter", 0, parameter, at::zeros({3}), {}), std::invalid_argument);
}
