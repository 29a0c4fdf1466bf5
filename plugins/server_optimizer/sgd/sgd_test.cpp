#include "sgd.hpp"

#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <hansa/plugin.h>

#include "test.hpp"

using namespace hansa;
using sgd::Params, sgd::Sgd;

namespace {

at::Tensor random_tensor(std::int64_t count, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  auto made = at::empty({count}, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < count; ++i) made.mutable_data_ptr<float>()[i] = normal(engine);
  return made;
}

// Ten steps against a naive loop in double.
void compare(Params params) {
  Sgd optimizer(params);
  auto parameter = random_tensor(37, 1);
  std::vector<double> x(37), v(37);
  for (int i = 0; i < 37; ++i) x[i] = parameter.const_data_ptr<float>()[i];
  std::vector<at::Tensor> state;
  for (const auto& spec : optimizer.state({"w", DType::f32, {37}})) state.push_back(at::zeros(spec.shape));
  for (std::uint64_t round = 1; round <= 10; ++round) {
    const auto delta = random_tensor(37, 10 + round);
    const auto before = delta.clone();
    optimizer.begin_step(round);
    optimizer.step("adapter", 0, parameter, delta, state);
    for (int i = 0; i < 37; ++i) {
      const double d = delta.const_data_ptr<float>()[i];
      v[i] = params.momentum * v[i] + d;
      x[i] += params.learning_rate * (params.nesterov ? d + params.momentum * v[i] : v[i]);
      CHECK(parameter.const_data_ptr<float>()[i] == Approx(x[i]).margin(1e-4));
      CHECK(delta.const_data_ptr<float>()[i] == before.const_data_ptr<float>()[i]);
    }
  }
}

}  // namespace

TEST_CASE("sgd follows a naive reference with and without momentum and nesterov") {
  compare({1, 0, false});
  compare({0.3, 0, false});
  compare({0.5, 0.9, false});
  compare({0.7, 0.9, true});
}

TEST_CASE("sgd's defaults are plain averaging and nothing else is") {
  CHECK((sgd::traits({}) & HANSA_TRAIT_PLAIN_AVERAGING) != 0);
  CHECK((sgd::traits({0.5, 0, false}) & HANSA_TRAIT_PLAIN_AVERAGING) == 0);
  CHECK((sgd::traits({1, 0.9, false}) & HANSA_TRAIT_PLAIN_AVERAGING) == 0);
  CHECK((sgd::traits({1, 0.9, false}) & HANSA_TRAIT_KEEPS_HISTORY) != 0);
  CHECK(Sgd(Params{}).state({"w", DType::f32, {3}}).empty());
}

TEST_CASE("sgd refuses tensors that do not belong together") {
  Sgd optimizer(Params{});
  auto parameter = random_tensor(4, 1);
  CHECK_THROWS_AS(optimizer.step("adapter", 0, parameter, random_tensor(5, 1), {}), std::invalid_argument);
  CHECK_THROWS_AS(optimizer.step("adapter", 0, parameter, random_tensor(4, 1).to(at::kDouble), {}),
                  std::invalid_argument);
  CHECK_THROWS_AS(Sgd(Params{1, 0.9, false}).step("adapter", 0, parameter, random_tensor(4, 1), {}),
                  std::invalid_argument);
}
