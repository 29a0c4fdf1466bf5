#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <adapters/lora.hpp>
#include <hansa/testing/bare_model.hpp>
#include <nlohmann/json.hpp>
#include <nn/dropout.hpp>
#include <nn/places.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

namespace lora {
using Params = adapters::LoraParams;
struct Lora : adapters::Lora {
  explicit Lora(Params params) : adapters::Lora("lora", adapters::PairForm::Plain, std::move(params)) {}
};
}  // namespace lora

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
  CHECK_THROWS_WITH(lora::Lora(std::move(params)).layout(some_modules(), 0), Contains(words));
}

at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, 1, nn::make_generator(seed));
}
// An adapter whose parameters are random.
void fill(lora::Lora& adapter, Index parameters) {
  at::NoGradGuard no_grad;
  for (Index i = 0; i < parameters; ++i) adapter.parameter(i).copy_(normal(adapter.parameter(i).sizes(), 70 + i));
}
// One entry of the log: `columns` random columns for each of the modules.
Download residual(const std::vector<std::string>& modules, std::int64_t columns, std::uint64_t seed) {
  Download download{.channel = "residual", .epoch = seed};
  for (const auto& module : some_modules()) {
    if (std::find(modules.begin(), modules.end(), module.name) == modules.end()) continue;
    download.tensors.emplace_back(module.name + ".residual_A", normal({columns, module.in}, 2 * seed));
    download.tensors.emplace_back(module.name + ".residual_B", normal({module.out, columns}, 2 * seed + 1));
  }
  return download;
}
// What all entries add to a module, dense and in double.
at::Tensor dense(const std::vector<Download>& log, const Module& module) {
  auto sum = at::zeros({module.out, module.in}, at::kDouble);
  for (const auto& entry : log)
    for (std::size_t i = 0; i + 1 < entry.tensors.size(); i += 2)
      if (entry.tensors[i].first == module.name + ".residual_A")
        sum += at::mm(entry.tensors[i + 1].second.to(at::kDouble), entry.tensors[i].second.to(at::kDouble));
  return sum;
}
// The change of each module's weight that the adapter's injections make.
std::map<std::string, at::Tensor> changes(lora::Lora& adapter) {
  nn::Places places(some_modules());
  places.inject(adapter.injections());
  std::map<std::string, at::Tensor> found;
  for (const auto& place : places.all())
    if (!place.injected.nothing())
      found[place.module.name] =
          nn::Places::folded(place, at::zeros({place.module.out, place.module.in}), {}).first.to(at::kDouble);
  return found;
}
double largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

const std::string kUp = "model.0.mlp.up", kDown = "model.0.mlp.c_proj";

}  // namespace

TEST_CASE("the layout has a scaled pair for every target, known without weights") {
  const lora::Lora adapter({.targets = {"c_proj"}, .r = 4, .alpha = 6});
  const auto layout = adapter.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 4);
  CHECK(layout.tensors[2].name == "model.0.mlp.c_proj.lora_A");
  CHECK(layout.tensors[2].shape == std::vector<std::int64_t>{4, 30});
  CHECK(layout.tensors[3].shape == std::vector<std::int64_t>{12, 4});
  CHECK(layout.groups[1] == Group{.kind = "lora", .members = {2, 3}, .scale = 1.5});
  CHECK(lora::Lora({.r = 4}).layout(some_modules(), 0).tensors.size() == 6);  // all-linear leaves the head alone
  CHECK(lora::Lora({.targets = {"attn.c_proj", "head"}, .r = 4, .alpha = 6, .rslora = true})
            .layout(some_modules(), 0)
            .groups[1]
            .scale == 3);
}

TEST_CASE("targets and ranks that cannot be are refused with what exists") {
  refused({.targets = {"q_proj"}}, "'q_proj' matches no module of this model; linear modules end in c_proj, head, up");
  refused({.targets = {"c_proj", "embed"}}, "which is none of the linear modules");
  refused({.targets = {"c_proj"}, .r = 13}, "r = 13 is more than 'model.0.attn.c_proj' can hold, 12 x 12");
  refused({.targets = {"roj"}}, "matches no module");
  refused({.targets = {}}, "targets is empty");
}

TEST_CASE("one seed gives the same bits, and B starts at zero") {
  lora::Lora first({}), second({}), other({});
  first.create(kNoModel, some_modules(), 0, 7);
  second.create(kNoModel, some_modules(), 0, 7);
  other.create(kNoModel, some_modules(), 0, 8);
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
  adapter.create(kNoModel, some_modules(), 0, 7);
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
  CHECK(read.layout(some_modules(), 0) == adapter.layout(some_modules(), 0));
  for (Index i = 0; i < 4; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  CHECK(std::get<LowRank>(read.injections()[0].what).dropout == 0.25);
}

TEST_CASE("an adapter directory with what we cannot compute is refused by name") {
  TemporaryDirectory temporary;
  lora::Lora adapter({});
  adapter.create(kNoModel, some_modules(), 0, 7);
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
  refuses("rank_pattern", {{"up|down", 4}});
  refuses("rank_pattern", {{"up", "4"}});
  refuses("alpha_pattern", {{"up", -1}});
  refuses("alpha_pattern", 3);
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

TEST_CASE("a node's own rank keeps alpha, so the scale follows the rank") {
  const lora::Lora adapter({.targets = {"up"}, .r = 8, .alpha = 16});
  const auto layout = adapter.layout(some_modules(), 4);
  CHECK((layout.tensors[0].shape == std::vector<std::int64_t>{4, 12}));
  CHECK(layout.groups[0].scale == 4);
  CHECK(adapter.layout(some_modules(), 0).groups[0].scale == 2);
  CHECK(lora::Lora({.targets = {"up"}, .alpha = 16, .rslora = true}).layout(some_modules(), 4).groups[0].scale == 8);
  lora::Lora made({.targets = {"up"}, .r = 8, .alpha = 16});
  made.create(kNoModel, some_modules(), 4, 7);
  CHECK((made.parameter(0).sizes() == at::IntArrayRef({4, 12})));
  CHECK(std::get<LowRank>(made.injections()[0].what).scale == 4);
  for (double rank : {0.5, -1.0, 2.5})
    CHECK_THROWS_WITH(adapter.layout(some_modules(), rank), Contains("a whole number of at least 1"));
  CHECK_THROWS_WITH(adapter.layout(some_modules(), 13), Contains("r = 13 is more than"));
}

TEST_CASE("a log of residuals adds to the frozen weights beside the pair, however long it grows") {
  lora::Lora adapter({.targets = {"mlp.c_proj", "up"}, .r = 3, .alpha = 6});
  adapter.create(kNoModel, some_modules(), 0, 7);
  fill(adapter, 4);
  const auto before = changes(adapter);
  CHECK(adapter.injections().size() == 2);
  std::vector<Download> log;
  for (std::uint64_t round = 1; round <= 6; ++round) {  // 30 columns in all; 12 is the shorter side of both modules
    log.push_back(residual({kUp, kDown}, 5, round));
    log.back().anew = round == 1;
    adapter.receive(const_cast<testing::BareModel&>(kNoModel), log.back());
    const auto now = changes(adapter);
    for (const auto& module : some_modules())
      if (now.contains(module.name))
        CHECK(largest(now.at(module.name) - before.at(module.name) - dense(log, module)) < 2e-5);
  }
  const auto injections = adapter.injections();
  REQUIRE(injections.size() == 4);
  const auto& fixed = std::get<LowRank>(injections[1].what);
  CHECK((injections[1].module == injections[0].module && fixed.scale == 1 && fixed.dropout == 0));
  CHECK_FALSE(fixed.A.requires_grad());
  CHECK(fixed.A.size(0) == 12);
  log = {residual({kUp}, 2, 9)};
  log[0].anew = true;
  adapter.receive(const_cast<testing::BareModel&>(kNoModel), log[0]);
  CHECK(largest(changes(adapter).at(kUp) - before.at(kUp) - dense(log, some_modules()[3])) < 1e-5);
  CHECK(largest(changes(adapter).at(kDown) - before.at(kDown)) == 0);  // anew forgets all modules
}

TEST_CASE("what is received is copied, and what does not fit is refused") {
  lora::Lora adapter({.targets = {"up"}, .r = 3});
  adapter.create(kNoModel, some_modules(), 0, 7);
  auto& model = const_cast<testing::BareModel&>(kNoModel);
  auto entry = residual({kUp}, 2, 1);
  adapter.receive(model, entry);
  const auto before = changes(adapter);
  entry.tensors[0].second.fill_(9);
  CHECK(changes(adapter).at(kUp).equal(before.at(kUp)));
  auto refused = [&](Download download, const std::string& words) {
    CHECK_THROWS_WITH(adapter.receive(model, download), Contains(words));
  };
  refused(residual({kDown}, 2, 1), "a residual for 'model.0.mlp.c_proj', which holds no low-rank pair");
  refused({.channel = "another"}, "no use for channel 'another'");
  refused({.channel = "residual", .tensors = {{kUp + ".lora_A", normal({2, 12}, 1)}}}, "which is no residual factor");
  refused({.channel = "residual", .tensors = {{kUp + ".residual_A", normal({2, 12}, 1)}}}, "do not fit it");
  auto wrong = residual({kUp}, 2, 1);
  wrong.tensors[1].second = normal({30, 3}, 1);
  refused(wrong, "do not fit it");
  CHECK(changes(adapter).at(kUp).equal(before.at(kUp)));
}

TEST_CASE("an export with residuals is one pair of the rank it needs, and computes the same") {
  auto& model = const_cast<testing::BareModel&>(kNoModel);
  // One length everywhere; one module longer than the other; longer than a weight can need.
  for (const auto& log : {std::vector{residual({kUp, kDown}, 4, 1)}, std::vector{residual({kUp}, 4, 1)},
                          std::vector{residual({kUp, kDown}, 4, 1), residual({kDown}, 20, 2)}}) {
    TemporaryDirectory temporary;
    lora::Lora adapter({.targets = {"mlp.c_proj", "up"}, .r = 3, .alpha = 5, .rslora = true}), read({});
    adapter.create(kNoModel, some_modules(), 0, 7);
    fill(adapter, 4);
    for (const auto& entry : log) adapter.receive(model, entry);
    adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
    read.import_from(temporary.path(), kNoModel, some_modules());
    const auto want = changes(adapter), got = changes(read);
    REQUIRE(got.size() == 2);
    for (const auto& [module, change] : want) CHECK(largest(got.at(module) - change) < 1e-5 * largest(change));
    const auto config = nlohmann::json::parse(read_file(temporary.path() / "adapter_config.json"));
    CHECK(config.at("use_rslora") == false);
    const auto layout = read.layout(some_modules(), 0);
    for (const auto& group : layout.groups) CHECK(group.scale == 1);
    const auto rank_of_up = layout.tensors[2].shape[0], rank_of_down = layout.tensors[0].shape[0];
    CHECK(rank_of_up == 7);
    CHECK(rank_of_down == (log.size() == 2 ? 12 : log[0].tensors.size() == 4 ? 7 : 3));
    CHECK(config.at("rank_pattern").empty() == (rank_of_up == rank_of_down));
    CHECK_THROWS_WITH(read.layout(some_modules(), 4), Contains("shapes of its own"));
    CHECK_THROWS_WITH(read.layout(std::vector<Module>{some_modules()[3]}, 0), Contains("1 of the 2 modules"));
  }
}

TEST_CASE("patterns of ranks and alphas are read as PEFT reads them: an end of the name, the first that fits") {
  TemporaryDirectory temporary;
  lora::Lora adapter({.r = 8, .alpha = 16}), read({});
  adapter.create(kNoModel, some_modules(), 0, 7);
  adapter.export_to(kNoModel, some_modules(), "base", temporary.path());
  const auto path = temporary.path() / "adapter_config.json";
  auto config = nlohmann::ordered_json::parse(read_file(path));
  config["r"] = 4;
  config["rank_pattern"] = {{"c_proj", 8}, {"model.0.mlp.up", 8}};
  config["alpha_pattern"] = nlohmann::ordered_json::object();
  config["alpha_pattern"]["mlp.c_proj"] = 4;
  config["alpha_pattern"]["c_proj"] = 2;
  write_file_atomically(path, config.dump(), Durability::Process);
  read.import_from(temporary.path(), kNoModel, some_modules());
  const auto groups = read.layout(some_modules(), 0).groups;
  CHECK(groups[0].scale == 0.25);  // attn.c_proj
  CHECK(groups[1].scale == 0.5);   // mlp.c_proj
  CHECK(groups[2].scale == 2);     // up
}

namespace {

class Weighted : public testing::BareModel {
 public:
  std::pair<at::Tensor, at::Tensor> base(std::string_view module) const override {
    for (const auto& one : some_modules())
      if (one.name == module) return {normal({one.out, one.in}, 40), {}};
    throw std::logic_error("no such module");
  }
};

}  // namespace

TEST_CASE("pissa starts as the largest part of the weight and takes it out of the frozen weight") {
  const Weighted model;
  lora::Lora adapter({.targets = {"up"}, .r = 3, .alpha = 6, .start = adapters::PairStart::Pissa});
  adapter.create(model, some_modules(), 0, 7);
  CHECK(largest(changes(adapter).at(kUp)) < 1e-5);  // the model starts as its base
  const auto weight = model.base(kUp).first.to(at::kDouble);
  const auto [U, S, V] = at::linalg_svd(weight, false);
  const auto best = at::mm(U.narrow(1, 0, 3) * S.narrow(0, 0, 3), V.narrow(0, 0, 3));
  const auto pair = at::mm(adapter.parameter(1).detach(), adapter.parameter(0).detach()).to(at::kDouble) * 2.0;
  // Nearest among all of that rank: nothing is closer to the weight.
  CHECK((weight - pair).norm().item<double>() == Approx((weight - best).norm().item<double>()).epsilon(1e-3));
  adapter.receive(const_cast<Weighted&>(model), residual({kUp}, 2, 9));
  auto log = residual({kUp}, 2, 9);
  CHECK(largest(changes(adapter).at(kUp) - dense({log}, some_modules()[3])) < 2e-5);
}

TEST_CASE("an orthogonal start has neither factor at zero, and their product is") {
  lora::Lora adapter({.targets = {"up"}, .r = 4, .start = adapters::PairStart::Orthogonal});
  adapter.create(kNoModel, some_modules(), 0, 7);
  CHECK(largest(adapter.parameter(0)) > 0.01);
  CHECK(largest(adapter.parameter(1)) > 0.01);
  CHECK(largest(changes(adapter).at(kUp)) < 1e-5);
}

TEST_CASE("LoRA+ gives B a learning rate of its own") {
  lora::Lora adapter({.targets = {"up"}, .b_rate = 16});
  adapter.create(kNoModel, some_modules(), 0, 7);
  CHECK(adapter.rate(0) == 1);
  CHECK(adapter.rate(1) == 16);
}

TEST_CASE("patterns of a config give modules ranks and alphas of their own; one that fits none is refused") {
  const lora::Lora adapter({.targets = {"c_proj"}, .r = 4, .alpha = 8, .patterns = {{"mlp.c_proj", 2, 6.0}}});
  const auto layout = adapter.layout(some_modules(), 0);
  CHECK(layout.tensors[0].shape[0] == 4);
  CHECK(layout.tensors[2].shape[0] == 2);
  CHECK(layout.groups[1].scale == 3);
  refused({.targets = {"up"}, .patterns = {{"c_proj", 2, {}}}}, "which is none of the chosen modules");
}

TEST_CASE("modules trained whole stand beside the pairs, start as the base and come back from an export") {
  TemporaryDirectory temporary;
  const Weighted model;
  lora::Lora adapter({.targets = {"up"}, .r = 2, .modules_to_save = {"head"}}), read({});
  adapter.create(model, some_modules(), 0, 7);
  const auto layout = adapter.layout(some_modules(), 0);
  REQUIRE(layout.tensors.size() == 3);
  CHECK(layout.tensors[2].name == "head.weight");
  CHECK(adapter.parameter(2).detach().equal(model.base("head").first));
  fill(adapter, 3);
  adapter.export_to(model, some_modules(), "base", temporary.path());
  const auto config = nlohmann::json::parse(read_file(temporary.path() / "adapter_config.json"));
  CHECK(config.at("modules_to_save") == nlohmann::json{"head"});
  read.import_from(temporary.path(), model, some_modules());
  for (Index i = 0; i < 3; ++i) CHECK(read.parameter(i).equal(adapter.parameter(i)));
  refused({.targets = {"head"}, .r = 2, .modules_to_save = {"head"}}, "it can be one of them");
}
