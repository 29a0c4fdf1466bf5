#include "my_plugin.hpp"

#include <cmath>

#include <ATen/ops/full.h>
#include <hansa/testing/fake_updates.hpp>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::testing::FakeResults, hansa::testing::FakeUpdates, hansa::testing::promise;

namespace {

FakeUpdates three_clients() {
  FakeUpdates updates({"", {0}}, {{"t", hansa::DType::f32, {2, 3}}});
  updates.add({.node = 1, .weight = 1}, {at::full({2, 3}, 1.0)});
  updates.add({.node = 2, .weight = 3}, {at::full({2, 3}, 5.0)});
  updates.add({.node = 3, .weight = 0.1}, {at::full({2, 3}, -100.0)});
  return updates;
}
double first_of(double min_weight, const FakeUpdates& updates) {
  FakeResults results;
  MyPlugin({min_weight}).reduce(updates, results);
  return results.put_at(0).flatten().const_data_ptr<float>()[0];
}

void the_mean_is_weighted() {
  promise(std::abs(first_of(0, three_clients()) - (1 + 15 - 10) / 4.1) < 1e-6, "not the weighted mean");
}
void light_clients_are_left_out() {
  promise(std::abs(first_of(0.5, three_clients()) - 16.0 / 4) < 1e-6, "the light client counted");
}
void nobody_changes_nothing() {
  promise(first_of(0, FakeUpdates({"", {0}}, {{"t", hansa::DType::f32, {2, 3}}})) == 0, "not zero");
}

}  // namespace

int main() {
  return hansa::testing::run_cases({{"the mean is weighted", the_mean_is_weighted},
                                    {"light clients are left out", light_clients_are_left_out},
                                    {"nobody changes nothing", nobody_changes_nothing}});
}
