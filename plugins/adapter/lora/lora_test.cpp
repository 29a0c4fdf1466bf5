#include "lora.hpp"

#include <ATen/ops/full.h>

#include <hansa/testing/bare_model.hpp>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

std::vector<Module> some_modules() {
  using Kind = Module::Kind;
  return {{.name = "model.embed", .kind = Kind::Embedding, .in = 50, .out = 12},
          {.name = "model.0.attn.c_proj", .in = 12, .out = 12},
          {.name = "model.0.mlp.c_proj", .in = 30, .out = 12},
          {.name = "model.0.mlp.up", .in = 12, .out = 30},
          {.name = "head", .kind = Kind::Head, .in = 12, .out = 50}};
}
const testing::BareModel kNoModel;

void refused(lora::Params params, const std::string& words) {
  CHECK_THROWS_WITH(lora::Lora(std::move(params)).layout(some_modules()), Contains(words));
}

}  // namespace

TEST_CASE("the layout has a scaled pair for every target, known without weights") {
  const lora::Lora adapter({.targets = {"c_proj"}, .r = 4, .alpha = 6});
  const auto layout = adapter.layout(some_modules());
  REQUIRE(layout.tensors.size() == 4);
  CHECK(layout.tensors[2].name == "model.0.mlp.c_proj.lora_A");
  CHECK(layout.tensors[2].shape == std::vector<std::int64_t>{4, 30});
  CHECK(layout.tensors[3].shape == std::vector<std::int64_t>{12, 4});
  CHECK(layout.groups[1] == Group{.kind = "lora", .members = {2, 3}, .scale = 1.5});
  CHECK(lora::Lora({.r = 4}).layout(some_modules()).tensors.size() == 6);  // all-linear leaves the head alone
  CHECK(lora::Lora({.targets = {"attn.c_proj", "head"}, .r = 4, .alpha = 6, .rslora = true})
            .layout(some_modules())
            .groups[1]
            .scale == 3);
}

TEST_CASE("targets and ranks that cannot be are refused with what exists") {
  refused({.targets = {"q_proj"}}, "'q_proj' matches no module of this model; linear modules end in c_proj, head, up");
  refused({.targets = {"c_proj", "embed"}}, "is an embedding");
  refused({.targets = {"c_proj"}, .r = 13}, "r = 13 is more than 'model.0.attn.c_proj' can hold, 12 x 12");
  refused({.targets = {"roj"}}, "matches no module");
  refused({.targets = {}}, "targets is empty");
}

TEST_CASE("one seed gives the same bits, and B starts at zero") {
  lora::Lora first({}), second({}), other({});
  first.create(kNoModel, some_modules(), 7);
  second.create(kNoModel, some_modules(), 7);
  other.create(kNoModel, some_modules(), 8);
  for (Index i = 0; i < 6; ++i) CHECK(first.parameter(i).equal(second.parameter(i)));
  CHECK_FALSE(first.parameter(0).equal(other.parameter(0)));
  CHECK(first.parameter(1).abs().max().item<double>() == 0);
  CHECK(first.parameter(0).abs().max().item<double>() <= 1 / std::sqrt(12.0));
  CHECK(first.parameter(0).requires_grad());
  CHECK_THROWS_WITH(first.parameter(6), Contains("it holds 6"));
}

TEST_CASE("an export is imported with the same bits, targets and scale") {
  TemporaryDirectory temporary;
  const auto directory = temporary.path() / "adapter";
  lora::Lora adapter({.targets = {"mlp.c_proj", "up"}, .r = 3, .alpha = 5, .dropout = 0.25, .rslora = true});
  adapter.create(kNoModel, some_modules(), 7);
  {
    auto B = adapter.parameter(1).detach();
    B.fill_(0.5);
  }
  adapter.export_to(kNoModel, some_modules(), "some/base", directory);
  const auto config = nlohmann::json::parse(read_file(directory / "adapter_config.json"));
  CHECK(config.at("target_modules") == nlohmann::json{"mlp.c_proj", "up"});
  CHECK(config.at("base_model_name_or_path") == "some/base");
  lora::Lora read({});
  CHECK(read.recognises(directory));
  CHECK_FALSE(read.recognises(temporary.path()));
  read.import_from(directory, kNoModel, some_modules());
  CHECK(read.layout(some_modules()) == adapter.layout(some_modules()));
  for (Index i = 0; i < 4; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  CHECK(std::get<LowRank>(read.injections()[0].what).dropout == 0.25);
}

TEST_CASE("an adapter directory with what we cannot compute is refused by name") {
  TemporaryDirectory temporary;
  lora::Lora adapter({});
  adapter.create(kNoModel, some_modules(), 7);
  adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
  const auto path = temporary.path() / "adapter_config.json";
  const auto good = nlohmann::json::parse(read_file(path));
  auto refuses = [&](const char* key, const nlohmann::json& value) {
    auto changed = good;
    changed[key] = value;
    write_file_atomically(path, changed.dump(), Durability::Process);
    lora::Lora read({});
    CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, some_modules()), Contains(key));
  };
  refuses("use_dora", true);
  refuses("rank_pattern", {{"up", 4}});
  refuses("init_lora_weights", "pissa");
  refuses("modules_to_save", {"head"});
  refuses("bias", "all");
  refuses("layer_replication", {{0, 1}});
  refuses("r", 0);
  auto changed = good;
  changed["r"] = 4;
  write_file_atomically(path, changed.dump(), Durability::Process);
  lora::Lora read({});
  CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, some_modules()), Contains("is 8 x 12"));
  write_file_atomically(path, good.dump(), Durability::Process);
  auto fewer = some_modules();
  fewer.erase(fewer.begin() + 3);
  CHECK_THROWS_WITH(read.import_from(temporary.path(), kNoModel, fewer), Contains("belongs to no module"));
}
