#include "layers.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <hansa/testing/bare_model.hpp>
#include <nn/dropout.hpp>

#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using layers::Layers;

namespace {

std::vector<Module> some_modules() {
  using Kind = Module::Kind;
  return {{.name = "embed", .kind = Kind::Embedding, .in = 9, .out = 6},
          {.name = "h.0.fc", .in = 6, .out = 4, .bias = true},
          {.name = "h.1.attn", .kind = Kind::Attention, .in = 2, .out = 3},
          {.name = "h.1.fc", .in = 6, .out = 4, .bias = true},
          {.name = "h.1.norm", .kind = Kind::Norm, .out = 6},
          {.name = "head", .kind = Kind::Head, .in = 6, .out = 9}};
}
class Weighted : public testing::BareModel {
 public:
  std::pair<at::Tensor, at::Tensor> base(std::string_view name) const override {
    for (const auto& module : some_modules()) {
      if (module.name != name) continue;
      const auto random = [&](std::vector<std::int64_t> shape) {
        return at::empty(shape, at::kFloat).normal_(0, 1, nn::make_generator(name.size()));
      };
      return {random(adapters::shape_of(module)), module.bias ? random({module.out}) : at::Tensor()};
    }
    throw std::logic_error("no such module");
  }
};

std::vector<std::string> names(const Layers& adapter) {
  std::vector<std::string> all;
  for (const auto& tensor : adapter.layout(some_modules(), 0).tensors) all.push_back(tensor.name);
  return all;
}

}  // namespace

TEST_CASE("the modules of some blocks and some outside train, whole") {
  CHECK(names(Layers({})) == std::vector<std::string>{"h.1.fc.weight", "h.1.fc.bias", "h.1.norm.weight"});
  CHECK(names(Layers({.targets = {"fc"}, .blocks = {0}, .outside = {"head"}})) ==
        std::vector<std::string>{"h.0.fc.weight", "h.0.fc.bias", "head.weight"});
  CHECK(names(Layers({.blocks = {}})).size() == 7);
  CHECK_THROWS_WITH(names(Layers({.blocks = {2}})), Contains("there is no block 2; this model has 2"));
  CHECK_THROWS_WITH(names(Layers({.targets = {"attn"}})), Contains("none of the modules with parameters"));
  CHECK_THROWS_WITH(names(Layers({.targets = {"gate"}})),
                    Contains("modules with parameters end in embed, fc, head, norm"));
  CHECK_THROWS_WITH(names(Layers({.outside = {"h.1.norm"}})), Contains("it can be one of them"));
}

TEST_CASE("they start as the base's, replace it, and come back from a directory") {
  TemporaryDirectory temporary;
  const Weighted model;
  Layers adapter({.outside = {"head"}}), read({});
  adapter.create(model, some_modules(), 0, 1);
  CHECK(adapter.parameter(0).detach().equal(model.base("h.1.fc").first));
  CHECK(adapter.parameter(1).detach().equal(model.base("h.1.fc").second));
  const auto injections = adapter.injections();
  REQUIRE(injections.size() == 3);
  CHECK(std::get<Replace>(injections[0].what).weight.is_same(adapter.parameter(0)));
  {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < 4; ++i) adapter.parameter(i).add_(static_cast<double>(i + 1));
  }
  adapter.export_to(model, some_modules(), "base", temporary.path());
  REQUIRE(read.recognises(temporary.path()));
  read.import_from(temporary.path(), model, some_modules());
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  for (Index i = 0; i < 4; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  auto others = some_modules();
  others[3].out = 5;
  CHECK_THROWS_WITH(read.import_from(temporary.path(), model, others), Contains("are not those of this model's"));
}
