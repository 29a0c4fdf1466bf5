#include "full.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/TensorOperators.h>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

std::vector<Module> some_modules() {
  return {{.name = "embed", .kind = Module::Kind::Embedding, .in = 5, .out = 2},
          {.name = "fc", .in = 2, .out = 3, .bias = true, .stored_transposed = true},
          {.name = "norm", .kind = Module::Kind::Norm, .in = 2, .out = 2}};
}

class Base : public testing::BareModel {
 public:
  std::pair<at::Tensor, at::Tensor> base(std::string_view module) const override {
    if (module == "embed") return {at::arange(10, at::kFloat).view({5, 2}), {}};
    if (module == "fc") return {fc, at::ones({3})};
    return {at::ones({2}), {}};
  }
  at::Tensor fc = at::arange(6, at::kFloat).view({3, 2});
};

}  // namespace

TEST_CASE("full trains copies of all parameters of the base") {
  Base base;
  full::Full adapter;
  CHECK(adapter.layout(some_modules(), 0).tensors.size() == 4);
  CHECK(adapter.layout(some_modules(), 0).tensors[1].shape == std::vector<std::int64_t>{3, 2});
  adapter.create(base, some_modules(), 0, 1);
  {
    at::NoGradGuard no_grad;
    adapter.parameter(1).add_(1);
  }
  CHECK(base.fc.equal(at::arange(6, at::kFloat).view({3, 2})));
  CHECK(std::get<Replace>(adapter.injections()[1].what).weight.is_same(adapter.parameter(1)));
  CHECK(std::get<Replace>(adapter.injections()[1].what).bias.defined());
}

TEST_CASE("whole weights have no rank") {
  CHECK_THROWS_WITH(full::Full().layout(some_modules(), 4), Contains("rank 4"));
  CHECK_THROWS_WITH(full::Full().create(Base(), some_modules(), 4, 1), Contains("rank 4"));
}

TEST_CASE("a full export is a checkpoint with the base's config and tokenizer, and is imported with the same bits") {
  TemporaryDirectory temporary;
  const auto base = temporary.path() / "base", out = temporary.path() / "out";
  std::filesystem::create_directories(base);
  write_file_atomically(base / "config.json", R"({"model_type": "x", "torch_dtype": "bfloat16"})", Durability::Process);
  write_file_atomically(base / "tokenizer.json", "{}", Durability::Process);
  full::Full adapter, read;
  CHECK_THROWS_WITH(adapter.export_to(Base(), some_modules(), base.string(), out), Contains("before it is created"));
  adapter.create(Base(), some_modules(), 0, 1);
  CHECK_THROWS_WITH(adapter.export_to(Base(), some_modules(), "nowhere", out), Contains("config.json is not there"));
  adapter.export_to(Base(), some_modules(), base.string(), out);
  CHECK_THAT(read_file(out / "config.json"), Contains(R"("torch_dtype": "float32")"));
  CHECK(read_file(out / "tokenizer.json") == "{}");
  REQUIRE(read.recognises(out));
  CHECK_FALSE(read.recognises(base));
  read.import_from(out, Base(), some_modules());
  for (Index i = 0; i < 4; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  auto other = some_modules();
  other[1].in = 4;
  CHECK_THROWS_WITH(read.import_from(out, Base(), other), Contains("'fc.weight' is 2 x 3"));
}
