#include "my_plugin.hpp"

#include <cmath>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::testing::promise;

namespace {

void two_steps_are_as_by_hand() {
  MyPlugin optimizer({.learning_rate = 0.5, .momentum = 0.9});
  const hansa::TensorSpec spec{"w", hansa::DType::f32, {4}};
  auto parameter = at::full({4}, 1.0);
  std::vector<at::Tensor> state;
  for (const auto& wanted : optimizer.state(spec)) state.push_back(at::zeros(wanted.shape));
  const auto delta = at::full({4}, 2.0);
  optimizer.step("adapter", 0, parameter, delta, state);
  optimizer.step("adapter", 0, parameter, delta, state);
  const double velocity = 0.9 * 2 + 2;
  promise(std::abs(parameter.const_data_ptr<float>()[3] - (1 + 0.5 * 2 + 0.5 * velocity)) < 1e-6, "another value");
  promise(delta.const_data_ptr<float>()[0] == 2, "the delta was written to");
}

}  // namespace

int main() { return hansa::testing::run_cases({{"two steps are as by hand", two_steps_are_as_by_hand}}); }
