// Models with one bug each: one layer of attention without positions. Each reads checkpoints whose model_type is its own id.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/rand_like.h>
#include <ATen/TensorOperators.h>
#include <cmath>
#include <hansa/plugin.hpp>
#include <hf/json_config.hpp>
#include <nn/causal_model.hpp>
#include <nn/layers.hpp>

namespace planted {
using namespace hansa;

constexpr std::int64_t kWidth = 8;

enum class Flaw { None, SeesTheRow, PacksTogether, ForgetsTheCache, SkipsAModule, GlobalDropout };

class Layer final : public nn::Decoder {
 public:
  Layer(std::int64_t vocabulary, Flaw flaw) : flaw_(flaw) {
    using Kind = Module::Kind;
    plan_.vocabulary = vocabulary;
    plan_.max_length = 64;
    plan_.layers = 1;
    plan_.heads = {.query = 1, .key_value = 1, .dim = kWidth};
    plan_.modules = {{.name = "embed", .kind = Kind::Embedding, .in = vocabulary, .out = kWidth},
                     {.name = "mix", .in = kWidth, .out = 3 * kWidth, .bias = true},
                     {.name = "out", .in = kWidth, .out = kWidth, .bias = true},
                     {.name = "head", .kind = Kind::Head, .in = kWidth, .out = vocabulary}};
    plan_.head = "head";
    attention_ = {.heads = plan_.heads, .scale = 1 / std::sqrt(double{kWidth})};
    plan_.initial_deviation = [](const Module&) { return 0.4; };
  }
  const nn::DecoderPlan& plan() const override { return plan_; }
  void bind(nn::Places& places) override { places_ = &places; }
  at::Tensor forward(const nn::Pass& pass) override {
    auto batch = pass.batch;
    if (flaw_ == Flaw::PacksTogether) batch.segments = at::Tensor();
    auto* cache = flaw_ == Flaw::ForgetsTheCache ? nullptr : pass.cache;
    auto x = nn::embedding(places_->at("embed"), batch.tokens, pass.compute);
    const auto joined = nn::linear(places_->at("mix"), x, pass.dropout);
    const auto part = [&](std::int64_t which) { return joined.narrow(-1, which * kWidth, kWidth).unsqueeze(2); };
    const auto visible = nn::visibility(attention_, nn::Sees::Past, batch, cache, pass.compute, pass.dropout);
    const auto seen = nn::attention(part(0), part(1), part(2), attention_, visible, pass.dropout, cache, 0);
    if (flaw_ == Flaw::SeesTheRow) x = x - x.mean(1, true);
    if (flaw_ == Flaw::GlobalDropout && pass.dropout.enabled()) x = x * (1 + 0.1 * at::rand_like(x));
    auto out = places_->at("out");
    if (flaw_ == Flaw::SkipsAModule) out.injected = {};
    return (x + nn::linear(out, seen, pass.dropout)).tanh();
  }

 private:
  Flaw flaw_;
  nn::DecoderPlan plan_;
  nn::AttentionSpec attention_;
  nn::Places* places_ = nullptr;
};

class Attends : public nn::CausalModel {
 public:
  explicit Attends(std::string id = "right_attention", Flaw flaw = Flaw::None)
      : CausalModel(id, {id}, [id, flaw](const std::filesystem::path& checkpoint) {
          auto config = hf::JsonConfig::read(checkpoint, id);
          const auto vocabulary = config.positive("vocab_size");
          config.finish();
          return std::make_unique<Layer>(vocabulary, flaw);
        }) {}
};

struct SeesTheRow final : Attends {
  SeesTheRow() : Attends("sees_the_row", Flaw::SeesTheRow) {}
};
struct PacksTogether final : Attends {
  PacksTogether() : Attends("packs_together", Flaw::PacksTogether) {}
};
struct ForgetsTheCache final : Attends {
  ForgetsTheCache() : Attends("forgets_the_cache", Flaw::ForgetsTheCache) {}
};
struct SkipsAModule final : Attends {
  SkipsAModule() : Attends("skips_a_module", Flaw::SkipsAModule) {}
};
struct GlobalDropout final : Attends {
  GlobalDropout() : Attends("global_dropout", Flaw::GlobalDropout) {}
};
struct AcceptsAll final : Attends {
  AcceptsAll() : Attends("accepts_all") {}
  bool accepts(const std::filesystem::path&) const override { return true; }
};
struct CopiesInjections final : Attends {
  CopiesInjections() : Attends("copies_injections") {}
  void inject(std::span<const Injection> injections) override {
    std::vector<Injection> copies(injections.begin(), injections.end());
    for (auto& [module, what] : copies) {
      if (auto* pair = std::get_if<LowRank>(&what)) {
        if (pair->A.defined()) pair->A = pair->A.clone();
        if (pair->B.defined()) pair->B = pair->B.clone();
      } else if (auto& weight = std::get<Replace>(what).weight; weight.defined()) {
        weight = weight.clone();
      }
    }
    Attends::inject(copies);
  }
};
struct MergesNothing final : Attends {
  MergesNothing() : Attends("merges_nothing") {}
  std::vector<std::pair<std::string, at::Tensor>> merged() const override {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (const auto* name : {"embed", "mix", "out", "head"}) {
      const auto [weight, bias] = base(name);
      all.emplace_back(std::string(name) + ".weight", weight);
      if (bias.defined()) all.emplace_back(std::string(name) + ".bias", bias);
    }
    return all;
  }
};
struct MeanLoss final : Attends {
  MeanLoss() : Attends("mean_loss") {}
  at::Tensor loss(const Batch& batch) override { return Attends::loss(batch) / static_cast<double>(batch.counted); }
};
struct WrongSlope final : Attends {
  WrongSlope() : Attends("wrong_slope") {}
  at::Tensor loss(const Batch& batch) override {
    const auto exact = Attends::loss(batch);
    return exact + (exact - exact.detach()) * 0.5;  // the value of one loss, the slope of another
  }
};
struct IgnoresTheDropoutSeed final : Attends {
  IgnoresTheDropoutSeed() : Attends("ignores_the_dropout_seed") {}
  void enable_dropout(std::uint64_t) override { Attends::enable_dropout(1); }
};
struct TakesAnything final : Attends {
  TakesAnything() : Attends("takes_anything") {}
  void inject(std::span<const Injection> injections) override {
    Attends::inject({});
    try {
      Attends::inject(injections);
    } catch (const std::exception&) {  // what does not fit is left out
    }
  }
};
struct RoundsItsBase final : Attends {
  RoundsItsBase() : Attends("rounds_its_base") {}
  void open(const std::filesystem::path& checkpoint, const Opening& opening) override {
    Attends::open(checkpoint, opening);
    rounds_ = opening.compute == DType::bf16;
  }
  std::pair<at::Tensor, at::Tensor> base(std::string_view module) const override {
    auto [weight, bias] = Attends::base(module);
    return {rounds_ ? weight.to(at::kBFloat16).to(at::kFloat) : weight, bias};
  }
  bool rounds_ = false;
};
struct HidesABias final : Attends {
  HidesABias() : Attends("hides_a_bias") {}
  std::vector<Module> modules(const std::filesystem::path& checkpoint) const override {
    auto all = Attends::modules(checkpoint);
    all[2].bias = false;
    return all;
  }
};

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_models, "0.1.0") {
  using namespace planted;
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  plugin.add<Attends>("right_attention", "One layer of attention.");
  plugin.add<SeesTheRow>("sees_the_row", "Subtracts a mean over the whole row, padding and future too.");
  plugin.add<PacksTogether>("packs_together", "Ignores segments.");
  plugin.add<ForgetsTheCache>("forgets_the_cache", "Counts a cache's tokens and does not look at them.");
  plugin.add<SkipsAModule>("skips_a_module", "Takes injections into a module and computes without them.");
  plugin.add<GlobalDropout>("global_dropout", "Dropout from the global generator.");
  plugin.add<AcceptsAll>("accepts_all", "Accepts every folder.");
  plugin.add<CopiesInjections>("copies_injections", "Copies what is injected.");
  plugin.add<MergesNothing>("merges_nothing", "merged() is the base.");
  plugin.add<MeanLoss>("mean_loss", "The loss is a mean.");
  plugin.add<WrongSlope>("wrong_slope", "Its gradient is half as long again as its loss is steep.");
  plugin.add<IgnoresTheDropoutSeed>("ignores_the_dropout_seed", "One mask for all seeds.");
  plugin.add<TakesAnything>("takes_anything", "Leaves out injections that do not fit and says nothing.");
  plugin.add<RoundsItsBase>("rounds_its_base", "In bf16, base() is in bf16 too.");
  plugin.add<HidesABias>("hides_a_bias", "A module has a bias and says that it has none.");
}
