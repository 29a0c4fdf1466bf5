#include "ia3.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <hansa/testing/bare_model.hpp>
#include <nlohmann/json.hpp>
#include <nn/dropout.hpp>
#include <nn/places.hpp>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using ia3::Ia3;

namespace {

std::vector<Module> some_modules() {
  using Kind = Module::Kind;
  return {{.name = "h.0.k_proj", .in = 6, .out = 4},
          {.name = "h.0.o_proj", .in = 6, .out = 6},
          {.name = "h.0.down_proj", .in = 8, .out = 6, .bias = true},
          {.name = "h.1.down_proj", .in = 8, .out = 6, .bias = true},
          {.name = "norm", .kind = Kind::Norm, .out = 6}};
}
const testing::BareModel kNoModel;

at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, 1, nn::make_generator(seed));
}

}  // namespace

TEST_CASE("keys and values get a factor for each output, the last layer of the feed-forward part for each input") {
  const auto layout = Ia3({}).layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 3);
  CHECK(layout.tensors[0] == TensorSpec{.name = "h.0.k_proj.ia3_output", .shape = {4}});
  CHECK(layout.tensors[1] == TensorSpec{.name = "h.0.down_proj.ia3_input", .shape = {8}});
  CHECK(Ia3({.targets = {"o_proj"}, .feedforward = {}}).layout(some_modules(), 0).tensors.size() == 1);
  CHECK(Ia3({.targets = {}, .blocks = {1}}).layout(some_modules(), 0).tensors[0].name == "h.1.down_proj.ia3_input");
}

TEST_CASE("what cannot be is refused with what exists") {
  const auto refused = [](ia3::Params params, const std::string& words) {
    CHECK_THROWS_WITH(Ia3(std::move(params)).layout(some_modules(), 0), Contains(words));
  };
  refused({.targets = {"q_proj"}}, "target 'q_proj' matches no module of this model; linear modules end in down_proj");
  refused({.targets = {"norm"}}, "none of the linear modules");
  refused({.targets = {"down_proj"}}, "'h.0.down_proj' is among targets and feedforward");
  CHECK_THROWS_WITH(Ia3({}).layout(some_modules(), 4), Contains("this adapter has none"));
}

TEST_CASE("the weights that it computes with are those of the paper") {
  Ia3 adapter({});
  adapter.create(kNoModel, some_modules(), 0, 1);
  {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < 3; ++i) adapter.parameter(i).copy_(normal(adapter.parameter(i).sizes(), 10 + i));
  }
  nn::Places places(some_modules());
  places.inject(adapter.injections());
  const auto k = normal({4, 6}, 1), down = normal({6, 8}, 2), bias = normal({6}, 3);
  CHECK(nn::Places::folded(places.at("h.0.k_proj"), k, {}).first.equal(adapter.parameter(0).detach().unsqueeze(1) * k));
  const auto [weight, kept] = nn::Places::folded(places.at("h.0.down_proj"), down, bias);
  CHECK(weight.equal(down * adapter.parameter(1).detach()));
  CHECK(kept.equal(bias));
}

TEST_CASE("an export has PEFT's keys and shapes and comes back; keys that are not computed are refused by name") {
  TemporaryDirectory temporary;
  Ia3 adapter({.blocks = {0}}), read({});
  adapter.create(kNoModel, some_modules(), 0, 1);
  {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < 2; ++i) adapter.parameter(i).copy_(normal(adapter.parameter(i).sizes(), 10 + i));
  }
  adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
  const auto path = temporary.path() / "adapter_config.json";
  const auto config = nlohmann::json::parse(read_file(path));
  CHECK(config.at("target_modules") == nlohmann::json{"k_proj", "0.down_proj"});
  CHECK(config.at("feedforward_modules") == nlohmann::json{"0.down_proj"});
  REQUIRE(read.recognises(temporary.path()));
  read.import_from(temporary.path(), kNoModel, some_modules());
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  for (Index i = 0; i < 2; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  auto changed = config;
  changed["layer_replication"] = {{0, 1}};
  write_file_atomically(path, changed.dump(), Durability::Process);
  CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, some_modules()), Contains("layer_replication"));
}
