#include "prefix_tuning.hpp"

#include <hansa/testing/bare_model.hpp>
#include <hf/safetensors.hpp>
#include <hf/tensors.hpp>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using prefix_tuning::PrefixTuning;

namespace {

std::vector<Module> some_modules() {
  using Kind = Module::Kind;
  return {{.name = "h.0.attn", .kind = Kind::Attention, .in = 2, .out = 3},
          {.name = "h.0.fc", .in = 6, .out = 4},
          {.name = "h.1.attn", .kind = Kind::Attention, .in = 2, .out = 3}};
}
const testing::BareModel kNoModel;

}  // namespace

TEST_CASE("each attention layer has keys and values of its own heads") {
  PrefixTuning adapter({.tokens = 4});
  adapter.create(kNoModel, some_modules(), 0, 7);
  const auto layout = adapter.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 4);
  CHECK(layout.tensors[3] == TensorSpec{.name = "h.1.attn.prefix_values", .shape = {4, 2, 3}});
  const auto injections = adapter.injections();
  REQUIRE(injections.size() == 2);
  CHECK(std::get<Prefix>(injections[1].what).values.is_same(adapter.parameter(3)));
  const std::vector<Module> none{some_modules()[1]};
  CHECK_THROWS_WITH(adapter.layout(none, 0), Contains("no attention layer that takes a prefix"));
}

TEST_CASE("the exported table has for each token keys and values, layer after layer, and comes back") {
  TemporaryDirectory temporary;
  PrefixTuning adapter({.tokens = 4, .deviation = 1}), read({});
  adapter.create(kNoModel, some_modules(), 0, 7);
  adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
  const hf::SafetensorsFile file(temporary.path() / "adapter_model.safetensors");
  const auto table = hf::load_tensor(*file.find("prompt_embeddings"), DType::f32);
  CHECK((table.sizes() == at::IntArrayRef({4, 24})));
  for (Index i = 0; i < 4; ++i)
    CHECK(table.narrow(1, 6 * static_cast<std::int64_t>(i), 6).equal(adapter.parameter(i).detach().reshape({4, 6})));
  REQUIRE(read.recognises(temporary.path()));
  read.import_from(temporary.path(), kNoModel, some_modules());
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  for (Index i = 0; i < 4; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  const auto path = temporary.path() / "adapter_config.json";
  auto config = nlohmann::json::parse(read_file(path));
  CHECK(config.at("token_dim") == 6);
  CHECK(config.at("num_attention_heads") == 2);
  config["num_virtual_tokens"] = 3;
  write_file_atomically(path, config.dump(), Durability::Process);
  CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, some_modules()), Contains("make it 3 x 24"));
}

TEST_CASE("layers whose heads differ train, but have no place in PEFT's format") {
  TemporaryDirectory temporary;
  auto modules = some_modules();
  modules[2].out = 5;
  PrefixTuning adapter({.tokens = 4});
  adapter.create(kNoModel, modules, 0, 7);
  CHECK_THROWS_WITH(adapter.export_to(kNoModel, modules, "base", temporary.path()), Contains("other heads"));
}
