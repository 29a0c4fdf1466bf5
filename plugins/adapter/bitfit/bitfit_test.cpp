#include "bitfit.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <hansa/testing/bare_model.hpp>

#include "test.hpp"

using namespace hansa;
using bitfit::BitFit;
using Catch::Matchers::Contains;

namespace {

std::vector<Module> some_modules() {
  return {{.name = "embed", .kind = Module::Kind::Embedding, .in = 9, .out = 6},
          {.name = "h.0.fc", .in = 6, .out = 4, .bias = true},
          {.name = "h.1.fc", .in = 6, .out = 4, .bias = true},
          {.name = "h.1.bare", .in = 6, .out = 4},
          {.name = "norm", .kind = Module::Kind::Norm, .out = 6, .bias = true}};
}
class Biased : public testing::BareModel {
 public:
  std::pair<at::Tensor, at::Tensor> base(std::string_view module) const override {
    const std::int64_t width = module == "norm" ? 6 : 4;
    return {at::zeros({width, 6}), at::full({width}, 0.5)};
  }
};

}  // namespace

TEST_CASE("the biases of all modules that have one train, starting at the base's") {
  const Biased model;
  BitFit adapter({});
  adapter.create(model, some_modules(), 0, 1);
  const auto layout = adapter.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 3);
  CHECK(layout.tensors[2] == TensorSpec{.name = "norm.bias", .shape = {6}});
  CHECK(adapter.parameter(2).detach().equal(at::full({6}, 0.5)));
  const auto injections = adapter.injections();
  const auto& replace = std::get<Replace>(injections[0].what);
  CHECK(replace.bias.is_same(adapter.parameter(0)));
  CHECK_FALSE(replace.weight.defined());
  CHECK(BitFit({.blocks = {-1}}).layout(some_modules(), 0).tensors.size() == 1);
}

TEST_CASE("a model without biases, and a module without one, are refused") {
  const std::vector<Module> bare{{.name = "h.0.fc", .in = 6, .out = 4}};
  CHECK_THROWS_WITH(BitFit({}).layout(bare, 0), Contains("this model has no modules with a bias"));
  CHECK_THROWS_WITH(BitFit({.targets = {"bare"}}).layout(some_modules(), 0),
                    Contains("none of the modules with a bias"));
  CHECK_THROWS_WITH(BitFit({.targets = {"q_proj"}}).layout(some_modules(), 0),
                    Contains("modules with a bias end in fc, norm"));
}

TEST_CASE("a directory of our own comes back, and one of another model is refused") {
  TemporaryDirectory temporary;
  const Biased model;
  BitFit adapter({.targets = {"fc"}, .modules_to_save = {"bare"}}), read({});
  adapter.create(model, some_modules(), 0, 1);
  {
    const at::NoGradGuard no_grad;
    adapter.parameter(1).fill_(3);
  }
  adapter.export_to(model, some_modules(), "base", temporary.path());
  REQUIRE(read.recognises(temporary.path()));
  read.import_from(temporary.path(), model, some_modules());
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  for (Index i = 0; i < 3; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  auto narrow = some_modules();
  narrow[1].out = 5;
  CHECK_THROWS_WITH(read.import_from(temporary.path(), model, narrow), Contains("'h.0.fc' has no bias of 4"));
  narrow.erase(narrow.begin() + 1);
  CHECK_THROWS_WITH(read.import_from(temporary.path(), model, narrow), Contains("belongs to no module"));
}
