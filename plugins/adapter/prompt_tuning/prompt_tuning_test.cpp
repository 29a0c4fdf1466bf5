#include "prompt_tuning.hpp"

#include <ATen/ops/empty.h>

#include <hansa/testing/bare_model.hpp>
#include <nlohmann/json.hpp>
#include <nn/dropout.hpp>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using prompt_tuning::PromptTuning;

namespace {

std::vector<Module> some_modules() {
  using Kind = Module::Kind;
  return {{.name = "wte", .kind = Kind::Embedding, .in = 9, .out = 6},
          {.name = "wpe", .kind = Kind::Embedding, .in = 30, .out = 6},
          {.name = "h.0.fc", .in = 6, .out = 4},
          {.name = "h.1.fc", .in = 6, .out = 4}};
}
class Table : public testing::BareModel {
 public:
  std::pair<at::Tensor, at::Tensor> base(std::string_view) const override { return {table, {}}; }
  at::Tensor table = at::empty({9, 6}, at::kFloat).normal_(0, 1, nn::make_generator(3));
};

}  // namespace

TEST_CASE("a prompt starts as words of the vocabulary, in the embedding of tokens") {
  const Table model;
  PromptTuning adapter({.tokens = 4}), again({.tokens = 4}),
      random({.tokens = 4, .start = prompt_tuning::Start::Random});
  adapter.create(model, some_modules(), 0, 7);
  again.create(model, some_modules(), 0, 7);
  random.create(model, some_modules(), 0, 7);
  const auto layout = adapter.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 1);
  CHECK(layout.tensors[0] == TensorSpec{.name = "wte.prompt", .shape = {4, 6}});
  for (std::int64_t row = 0; row < 4; ++row) CHECK(model.table.eq(adapter.parameter(0)[row]).all(1).any().item<bool>());
  CHECK_FALSE(model.table.eq(random.parameter(0)[0]).all(1).any().item<bool>());
  CHECK(again.parameter(0).equal(adapter.parameter(0)));
  const auto injections = adapter.injections();
  CHECK(injections[0].module == "wte");
  CHECK(std::get<Prompt>(injections[0].what).rows.is_same(adapter.parameter(0)));
  const std::vector<Module> none{some_modules()[2]};
  CHECK_THROWS_WITH(adapter.layout(none, 0), Contains("no embedding of tokens"));
  CHECK_THROWS_WITH(adapter.layout(some_modules(), 2), Contains("this adapter has none"));
}

TEST_CASE("an export comes back, and what does not fit is refused") {
  TemporaryDirectory temporary;
  const Table model;
  PromptTuning adapter({.tokens = 4}), read({});
  adapter.create(model, some_modules(), 0, 7);
  adapter.export_to(model, some_modules(), "base", temporary.path());
  REQUIRE(read.recognises(temporary.path()));
  read.import_from(temporary.path(), model, some_modules());
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  CHECK(read.parameter(0).equal(adapter.parameter(0)));
  const auto path = temporary.path() / "adapter_config.json";
  const auto config = nlohmann::json::parse(read_file(path));
  CHECK(config.at("num_layers") == 2);
  const auto refuses = [&](const char* key, const nlohmann::json& value, const std::string& words) {
    auto changed = config;
    changed[key] = value;
    write_file_atomically(path, changed.dump(), Durability::Process);
    CHECK_THROWS_WITH(read.import_from(temporary.path(), model, some_modules()), Contains(words));
  };
  refuses("num_virtual_tokens", 5, "make it 5 x 6");
  refuses("num_transformer_submodules", 2, "num_transformer_submodules");
  refuses("cpt_token_ids", {1, 2}, "cpt_token_ids");
}
