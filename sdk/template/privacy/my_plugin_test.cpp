#include "my_plugin.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::testing::promise;

namespace {

struct AskedFor final : hansa::SecureRng {  // gives the deviation itself, so that a test can see it
  at::Tensor gaussian(at::IntArrayRef shape, double sigma) override { return at::full(shape, sigma); }
};

double noise_on_zero() {
  MyPlugin mechanism({.clipping_norm = 0.5, .noise_multiplier = 3});
  mechanism.begin_release({}, {.l2 = 0.5});
  auto sum = at::zeros({3});
  AskedFor random;
  mechanism.central("adapter", 0, sum, random);
  return sum.const_data_ptr<float>()[1];
}

void the_noise_is_what_the_event_says() {
  hansa::RoundPlan plan;
  plan.sampling_rate = 0.25;
  const MyPlugin mechanism({.clipping_norm = 0.5, .noise_multiplier = 3});
  const auto event = mechanism.event(plan);
  promise(event && event->noise_multiplier == 3 && event->sampling_rate == 0.25, "the event is another");
  promise(mechanism.clip_bound(plan) == 0.5, "the bound is another");
  promise(noise_on_zero() == 1.5, "the noise is not multiplier times sensitivity");
}

}  // namespace

int main() {
  return hansa::testing::run_cases({{"the noise is what the event says", the_noise_is_what_the_event_says}});
}
