#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <adapters/lora.hpp>
#include <hansa/testing/bare_model.hpp>
#include <nn/dropout.hpp>
#include <nn/places.hpp>

#include "test.hpp"

using namespace hansa;

namespace {

at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, 1, nn::make_generator(seed));
}
class Weighted : public testing::BareModel {
 public:
  std::pair<at::Tensor, at::Tensor> base(std::string_view) const override { return {weight, {}}; }
  at::Tensor weight = normal({6, 9}, 3);
};
std::vector<Module> one_module() { return {{.name = "up", .in = 9, .out = 6}}; }
struct Dora : adapters::Lora {
  explicit Dora(adapters::LoraParams params) : adapters::Lora("dora", adapters::PairForm::Dora, std::move(params)) {}
};
at::Tensor computed(Dora& adapter, const Weighted& model) {
  nn::Places places(one_module());
  places.inject(adapter.injections());
  return nn::Places::folded(places.all()[0], model.weight, {}).first;
}

}  // namespace

TEST_CASE("a fresh adapter computes the base, and its lengths are the rows'") {
  const Weighted model;
  Dora adapter({.r = 2, .alpha = 6});
  adapter.create(model, one_module(), 0, 5);
  CHECK(adapter.parameter(2).detach().allclose(at::linalg_vector_norm(model.weight, 2, 1)));
  CHECK(computed(adapter, model).allclose(model.weight, 1e-5, 1e-6));
  const auto layout = adapter.layout(one_module(), 0);
  REQUIRE(layout.groups.size() == 1);
  CHECK(layout.groups[0] == Group{.kind = "dora", .members = {0, 1, 2}, .scale = 3});
}

TEST_CASE("the weight it computes with is the formula's") {
  const Weighted model;
  Dora adapter({.r = 2, .alpha = 6});
  adapter.create(model, one_module(), 0, 5);
  {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < 3; ++i) adapter.parameter(i).copy_(normal(adapter.parameter(i).sizes(), 20 + i));
  }
  const auto A = adapter.parameter(0).detach(), B = adapter.parameter(1).detach(), m = adapter.parameter(2).detach();
  const auto got = computed(adapter, model);
  for (std::int64_t row = 0; row < 6; ++row) {
    std::vector<double> turned(9);
    double squares = 0;
    for (std::int64_t column = 0; column < 9; ++column) {
      double value = model.weight[row][column].item<double>();
      for (std::int64_t k = 0; k < 2; ++k) value += 3 * B[row][k].item<double>() * A[k][column].item<double>();
      turned[static_cast<std::size_t>(column)] = value;
      squares += value * value;
    }
    for (std::int64_t column = 0; column < 9; ++column)
      CHECK(got[row][column].item<double>() ==
            Approx(m[row].item<double>() * turned[static_cast<std::size_t>(column)] / std::sqrt(squares)).margin(1e-5));
  }
}

TEST_CASE("it exports a PEFT directory that it reads, and leaves plain pairs to others") {
  TemporaryDirectory temporary;
  const Weighted model;
  Dora adapter({.r = 2, .alpha = 6}), read({});
  adapter.create(model, one_module(), 0, 5);
  adapter.export_to(model, one_module(), "base", temporary.path());
  CHECK(read.recognises(temporary.path()));
  read.import_from(temporary.path(), model, one_module());
  for (Index i = 0; i < 3; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  CHECK_FALSE(adapters::Lora("lora", adapters::PairForm::Plain, {}).recognises(temporary.path()));
}
