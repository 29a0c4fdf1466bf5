#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <adapters/lora.hpp>
#include <hansa/testing/bare_model.hpp>
#include <nn/dropout.hpp>
#include <nn/places.hpp>

#include "test.hpp"

using namespace hansa;

namespace {

const testing::BareModel kNoModel;
std::vector<Module> some_modules() {
  return {{.name = "0.up", .in = 9, .out = 6}, {.name = "0.down", .in = 6, .out = 9}};
}
struct FfaLora : adapters::Lora {
  explicit FfaLora(adapters::LoraParams params)
      : adapters::Lora("ffa_lora", adapters::PairForm::FixedA, std::move(params)) {}
};
void fill(FfaLora& adapter, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (Index i = 0; i < 2; ++i) adapter.parameter(i).normal_(0, 1, nn::make_generator(seed + i));
}
std::vector<at::Tensor> changes(FfaLora& adapter) {
  nn::Places places(some_modules());
  places.inject(adapter.injections());
  std::vector<at::Tensor> all;
  for (const auto& place : places.all())
    all.push_back(nn::Places::folded(place, at::zeros({place.module.out, place.module.in}), {}).first);
  return all;
}

}  // namespace

TEST_CASE("B alone trains; one seed gives every node the same A") {
  FfaLora first({.r = 3}), second({.r = 3}), other({.r = 3});
  const auto layout = first.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 2);
  CHECK(layout.tensors[0].name == "0.up.lora_B");
  CHECK((layout.tensors[0].shape == std::vector<std::int64_t>{6, 3}));
  first.create(kNoModel, some_modules(), 0, 5);
  second.create(kNoModel, some_modules(), 0, 5);
  other.create(kNoModel, some_modules(), 0, 6);
  const auto A = [](FfaLora& adapter, std::size_t i) { return std::get<LowRank>(adapter.injections()[i].what).A; };
  CHECK(A(first, 0).equal(A(second, 0)));
  CHECK_FALSE(A(first, 0).equal(A(other, 0)));
  CHECK_FALSE(A(first, 0).requires_grad());
  for (const auto& change : changes(first)) CHECK(change.abs().max().item<double>() == 0);
}

TEST_CASE("the mean of the factors is the mean of the weights") {
  FfaLora first({.r = 3}), second({.r = 3}), mean({.r = 3});
  for (auto* adapter : {&first, &second, &mean}) adapter->create(kNoModel, some_modules(), 0, 5);
  fill(first, 11);
  fill(second, 21);
  {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < 2; ++i) mean.parameter(i).copy_((first.parameter(i) + second.parameter(i)) / 2);
  }
  const auto a = changes(first), b = changes(second), both = changes(mean);
  for (std::size_t i = 0; i < 2; ++i) CHECK(both[i].allclose((a[i] + b[i]) / 2, 1e-5, 1e-6));
}

TEST_CASE("an export is imported with the same weights, and is no plain pair's") {
  TemporaryDirectory temporary;
  FfaLora adapter({.r = 3, .alpha = 5}), read({});
  adapter.create(kNoModel, some_modules(), 0, 5);
  fill(adapter, 11);
  adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
  CHECK(read.recognises(temporary.path()));
  CHECK_FALSE(adapters::Lora("lora", adapters::PairForm::Plain, {}).recognises(temporary.path()));
  read.import_from(temporary.path(), kNoModel, some_modules());
  const auto want = changes(adapter), got = changes(read);
  for (std::size_t i = 0; i < 2; ++i) CHECK(got[i].equal(want[i]));
}
