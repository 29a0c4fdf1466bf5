#include "bottleneck.hpp"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/TensorOperators.h>

#include <hansa/testing/bare_model.hpp>
#include <nn/dropout.hpp>
#include <nn/layers.hpp>
#include <nn/places.hpp>

#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using Houlsby = bottleneck::Bottleneck;

namespace {

std::vector<Module> some_modules() {
  return {{.name = "h.0.o_proj", .in = 6, .out = 5},
          {.name = "h.0.up_proj", .in = 6, .out = 8},
          {.name = "h.0.down_proj", .in = 8, .out = 5},
          {.name = "head", .kind = Module::Kind::Head, .in = 5, .out = 9}};
}
const testing::BareModel kNoModel;

at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, 1, nn::make_generator(seed));
}

double gelu(double x) { return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0))); }

}  // namespace

TEST_CASE("attention and feed-forward part end in a bottleneck that starts as nothing") {
  Houlsby adapter({.width = 3});
  const auto layout = adapter.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 8);
  CHECK(layout.tensors[0] == TensorSpec{.name = "h.0.o_proj.bottleneck_down", .shape = {3, 5}});
  CHECK(layout.tensors[6] == TensorSpec{.name = "h.0.down_proj.bottleneck_up", .shape = {5, 3}});
  adapter.create(kNoModel, some_modules(), 0, 1);
  CHECK(adapter.parameter(0).abs().max().item<double>() > 0);
  for (Index i : {1, 2, 3}) CHECK(adapter.parameter(i).abs().max().item<double>() == 0);
  CHECK_THROWS_WITH(Houlsby({.targets = {"head"}}).layout(some_modules(), 0),
                    Contains("none of the linear modules of the blocks"));
  CHECK_THROWS_WITH(Houlsby({.targets = {"fc2"}}).layout(some_modules(), 0),
                    Contains("end in down_proj, o_proj, up_proj"));
}

TEST_CASE("what it adds is the formula's") {
  Houlsby adapter({.targets = {"o_proj"}, .width = 3});
  adapter.create(kNoModel, some_modules(), 0, 1);
  {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < 4; ++i) adapter.parameter(i).copy_(normal(adapter.parameter(i).sizes(), 10 + i));
  }
  nn::Places places(some_modules());
  auto& place = places.at("h.0.o_proj");
  place.weight = normal({5, 6}, 2);
  const auto x = normal({1, 6}, 3);
  nn::Dropout off;
  const auto plain = nn::linear(place, x, off);
  places.inject(adapter.injections());
  const auto got = nn::linear(place, x, off);
  const auto at = [&](Index tensor, std::int64_t row, std::int64_t column) {
    return adapter.parameter(tensor).detach().view({adapter.parameter(tensor).size(0), -1})[row][column].item<double>();
  };
  for (std::int64_t out = 0; out < 5; ++out) {
    double sum = plain[0][out].item<double>() + at(3, out, 0);
    for (std::int64_t k = 0; k < 3; ++k) {
      double inner = at(1, k, 0);
      for (std::int64_t i = 0; i < 5; ++i) inner += at(0, k, i) * plain[0][i].item<double>();
      sum += at(2, out, k) * gelu(inner);
    }
    CHECK(got[0][out].item<double>() == Approx(sum).margin(1e-4));
  }
}

TEST_CASE("a directory of our own comes back with its activation") {
  TemporaryDirectory temporary;
  Houlsby adapter({.width = 3, .activation = bottleneck::Activation::Silu}), read({});
  adapter.create(kNoModel, some_modules(), 0, 1);
  adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
  REQUIRE(read.recognises(temporary.path()));
  read.import_from(temporary.path(), kNoModel, some_modules());
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  CHECK(read.parameter(0).equal(adapter.parameter(0)));
  CHECK(std::get<hansa::Bottleneck>(read.injections()[0].what).activation == bottleneck::Activation::Silu);
  auto others = some_modules();
  others[0].out = 4;
  CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, others), Contains("does not fit its module"));
}
