#include "my_plugin.hpp"

#include <cmath>

#include <ATen/ops/full.h>
#include <hansa/testing/compressor_suite.hpp>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::DType;
using hansa::testing::promise;

namespace {

void what_every_compressor_must_hold() {
  hansa::testing::check_compressor(MyPlugin({}), DType::f32);
  hansa::testing::check_compressor(MyPlugin({}), DType::u8);
}
void the_error_is_bounded() {
  const auto in = hansa::testing::normal_tensor(DType::f32, {1000}, 1);
  const auto back = MyPlugin({}).decode(MyPlugin({}).encode(in, {}), {"t", DType::f32, {1000}}, 0);
  for (int i = 0; i < 1000; ++i) {
    const double x = in.const_data_ptr<float>()[i], y = back.const_data_ptr<float>()[i];
    promise(std::abs(x - y) <= std::abs(x) / 2048 + 1e-7, "an error above half a step");
  }
}
void large_values_are_cut() {
  const auto encoded = MyPlugin({.limit = 2}).encode(at::full({3}, -1e9), {});
  const auto back = MyPlugin({}).decode(encoded, {"t", DType::f32, {3}}, 0);
  promise(back.const_data_ptr<float>()[0] == -2, "not cut");
}

}  // namespace

int main() {
  return hansa::testing::run_cases({{"what every compressor must hold", what_every_compressor_must_hold},
                                    {"the error is bounded", the_error_is_bounded},
                                    {"large values are cut", large_values_are_cut}});
}
