#include "vera.hpp"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <hansa/testing/bare_model.hpp>
#include <nlohmann/json.hpp>
#include <nn/dropout.hpp>
#include <nn/places.hpp>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using vera::Vera;

namespace {

std::vector<Module> some_modules() {
  return {{.name = "h.0.q", .in = 6, .out = 4},
          {.name = "h.0.fc", .in = 3, .out = 7},
          {.name = "norm", .kind = Module::Kind::Norm, .out = 6}};
}
const testing::BareModel kNoModel;

void fill(Vera& adapter) {
  const at::NoGradGuard no_grad;
  for (Index i = 0; i < 4; ++i)
    adapter.parameter(i).copy_(
        at::empty(adapter.parameter(i).sizes(), at::kFloat).normal_(0, 1, nn::make_generator(10 + i)));
}
const LowRank& pair(const std::vector<Injection>& injections, std::size_t i) {
  return std::get<LowRank>(injections.at(i).what);
}

}  // namespace

TEST_CASE("two vectors a module train around matrices that all modules share") {
  Vera adapter({.r = 5, .initial = 0.25});
  adapter.create(kNoModel, some_modules(), 0, 1);
  const auto layout = adapter.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 4);
  CHECK(layout.tensors[0] == TensorSpec{.name = "h.0.q.vera_lambda_d", .shape = {5}});
  CHECK(layout.tensors[3] == TensorSpec{.name = "h.0.fc.vera_lambda_b", .shape = {7}});
  CHECK(adapter.parameter(0).detach().min().item<double>() == 0.25);
  CHECK(adapter.parameter(1).abs().max().item<double>() == 0);
  const auto all = adapter.injections();
  const auto &q = pair(all, 0), &fc = pair(all, 1);
  CHECK((q.A.sizes() == at::IntArrayRef({5, 6}) && q.B.sizes() == at::IntArrayRef({4, 5})));
  CHECK(q.A.narrow(1, 0, 3).equal(fc.A));
  CHECK(fc.B.narrow(0, 0, 4).equal(q.B));
  CHECK_FALSE(q.A.requires_grad());
  CHECK(fc.B.abs().max().item<double>() <= std::sqrt(6.0 / 5));
  CHECK(q.A.abs().max().item<double>() <= 1);
  Vera same({.r = 5}), other({.r = 5, .projection_key = 3});
  same.create(kNoModel, some_modules(), 0, 99);  // the run's seed has no part in it
  other.create(kNoModel, some_modules(), 0, 1);
  CHECK(pair(same.injections(), 0).A.equal(q.A));
  CHECK_FALSE(pair(other.injections(), 0).A.equal(q.A));
  CHECK_THROWS_WITH(Vera({.targets = {"norm"}}).layout(some_modules(), 0), Contains("none of the linear modules"));
}

TEST_CASE("the weight it computes with is the formula's") {
  Vera adapter({.r = 2});
  adapter.create(kNoModel, some_modules(), 0, 1);
  fill(adapter);
  nn::Places places(some_modules());
  const auto all = adapter.injections();
  places.inject(all);
  const auto got = nn::Places::folded(places.at("h.0.q"), at::zeros({4, 6}), {}).first;
  const auto d = adapter.parameter(0).detach(), b = adapter.parameter(1).detach();
  for (std::int64_t row = 0; row < 4; ++row)
    for (std::int64_t column = 0; column < 6; ++column) {
      double sum = 0;
      for (std::int64_t k = 0; k < 2; ++k)
        sum += b[row].item<double>() * pair(all, 0).B[row][k].item<double>() * d[k].item<double>() *
               pair(all, 0).A[k][column].item<double>();
      CHECK(got[row][column].item<double>() == Approx(sum).margin(1e-6));
    }
}

TEST_CASE("an export comes back, with saved projections or without, and a narrow one is refused") {
  TemporaryDirectory temporary;
  Vera adapter({.r = 5, .dropout = 0.25, .projection_key = 11}), read({}), drawn({});
  adapter.create(kNoModel, some_modules(), 0, 1);
  fill(adapter);
  adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
  REQUIRE(read.recognises(temporary.path()));
  read.import_from(temporary.path(), kNoModel, some_modules());
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  for (Index i = 0; i < 4; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  CHECK(pair(read.injections(), 1).B.equal(pair(adapter.injections(), 1).B));
  CHECK(pair(read.injections(), 0).dropout == 0.25);
  const auto path = temporary.path() / "adapter_config.json";
  auto config = nlohmann::json::parse(read_file(path));
  config["bias"] = "all";
  write_file_atomically(path, config.dump(), Durability::Process);
  CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, some_modules()), Contains("bias"));
  auto wide = some_modules();
  wide[0].in = 9;
  config["bias"] = "none";
  write_file_atomically(path, config.dump(), Durability::Process);
  CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, wide), Contains("the widest modules need 9"));
  config["save_projection"] = false;
  write_file_atomically(path, config.dump(), Durability::Process);
  CHECK_THROWS_WITH(drawn.import_from(temporary.path(), kNoModel, some_modules()), Contains("base_model.vera_A"));
}
