// A catalog of made-up components, for tests: the config can be tested without a single plugin file.
#pragma once
#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <hansa/catalog.hpp>
#include <hansa/schema.hpp>

namespace hansa::config {

struct FakeComponent : HansaComponent {
  std::string kind_text, id_text;
  std::shared_ptr<const SchemaBase> schema;
  std::function<std::uint64_t(const HansaValue&)> trait_flags = [](const HansaValue&) { return std::uint64_t{0}; };
  std::function<void(const HansaValue&, HansaProblems*)> check = [](const HansaValue&, HansaProblems*) {};
  std::string groups;
};

class FakeCatalog final : public ComponentCatalog {
 public:
  template <class P>
  FakeComponent& add(const std::string& kind, const std::string& id, Schema<P> schema, std::uint64_t traits = 0) {
    auto& c = components_.emplace_back();
    static_cast<HansaComponent&>(c) = HansaComponent{};
    c.struct_size = sizeof(HansaComponent);
    c.maturity = HANSA_STABLE;
    c.kind_text = kind + "/1";
    c.id_text = id;
    c.schema = std::make_shared<Schema<P>>(std::move(schema));
    c.kind = c.kind_text.c_str();
    c.id = c.id_text.c_str();
    c.summary = "A made-up component.";
    c.doc = "";
    c.params = c.schema->params().data();
    c.param_count = static_cast<std::uint32_t>(c.schema->params().size());
    c.trait_flags = [traits](const HansaValue&) { return traits; };
    c.validate = [](const HansaComponent* self, const HansaValue* params, HansaProblems* problems) -> std::uint32_t {
      static_cast<const FakeComponent*>(self)->check(*params, problems);
      return 0;
    };
    c.traits = [](const HansaComponent* self, const HansaValue* params, HansaTraits* out) -> std::uint32_t {
      const auto* fake = static_cast<const FakeComponent*>(self);
      out->flags = fake->trait_flags(*params);
      out->groups = fake->groups.c_str();
      return 0;
    };
    return c;
  }
  FakeComponent& add(const std::string& kind, const std::string& id, std::uint64_t traits = 0) {
    struct Nothing {};
    return add(kind, id, Schema<Nothing>(), traits);
  }

  const HansaComponent* find(std::string_view kind, std::string_view name) const override {
    const auto at = name.find('@');
    if (at != std::string_view::npos && name.substr(at) != "@1") return nullptr;
    for (const auto& c : components_)
      if (c.kind_text == std::string(kind) + "/1" && c.id_text == name.substr(0, at)) return &c;
    return nullptr;
  }
  std::vector<std::string> names(std::string_view kind) const override {
    std::vector<std::string> names;
    for (const auto& c : components_)
      if (c.kind_text == std::string(kind) + "/1") names.push_back(c.id_text);
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string remark(std::string_view, std::string_view name) const override {
    return name == "broken" ? "libbroken.so was refused: built for another LibTorch" : "";
  }

 private:
  std::deque<FakeComponent> components_;
};

struct FakeAdapterParams {
  std::int64_t r = 8;
  double alpha = 16;
  std::vector<std::string> targets{"q", "v"};
};
struct FakeTrainerParams {
  double rate = 1e-3;
  std::int64_t steps = 10;
  std::int8_t small = 1;
  std::string schedule = "cosine";
  Seconds patience{60};
  ByteSize buffer = MiB(1);
  std::optional<std::filesystem::path> log;
  std::string token;
  std::string old;
};
struct FakeNoiseParams {
  double clip = 1;
  double noise = 0;
};
struct FakeWrapperParams {
  ComponentChoice inner;
  std::int64_t depth = 1;
};

// One of everything that a pipeline needs, and some that rules and messages are about.
inline FakeCatalog fake_catalog() {
  FakeCatalog c;
  c.add("model", "tiny");
  c.add("adapter", "pairs",
        Schema<FakeAdapterParams>()
            .param(&FakeAdapterParams::r, "r", "Rank.", range(1, 1024))
            .param(&FakeAdapterParams::alpha, "alpha", "Scale.", more_than(0))
            .param(&FakeAdapterParams::targets, "targets", "Which modules.", at_least(1), list_of()))
      .groups = "pair";
  c.add("adapter", "everything");
  auto& trainer =
      c.add("trainer", "steps",
            Schema<FakeTrainerParams>()
                .param(&FakeTrainerParams::rate, "learning_rate", "Step size.", more_than(0))
                .param(&FakeTrainerParams::steps, "steps", "Steps per round.", required(), range(1, 1e6))
                .param(&FakeTrainerParams::small, "small", "A small number.")
                .param(&FakeTrainerParams::schedule, "schedule", "How the rate falls.",
                       choices({"constant", "linear", "cosine"}))
                .param(&FakeTrainerParams::patience, "patience", "How long to wait.")
                .param(&FakeTrainerParams::buffer, "buffer", "Memory for batches.")
                .param(&FakeTrainerParams::log, "log", "A file.", must_exist())
                .param(&FakeTrainerParams::token, "token", "A secret.", secret())
                .param(&FakeTrainerParams::old, "old", "Does nothing.", deprecated("use schedule instead")));
  trainer.check = [](const HansaValue& params, HansaProblems* problems) {
    if (find(params, "steps")->integer == 13)
      problems->add(problems->context, "steps", "13 brings bad luck", "choose 12 or 14");
  };
  c.add("data_source", "lines");
  c.add("evaluator", "loss");
  c.add("compressor", "squeeze", HANSA_TRAIT_LOSSLESS);
  c.add("compressor", "round");
  Schema<FakeNoiseParams> noise;
  noise.param(&FakeNoiseParams::clip, "clip", "Bound.", more_than(0))
      .param(&FakeNoiseParams::noise, "noise", "Multiplier.", at_least(0));
  c.add("privacy", "noise", noise, HANSA_TRAIT_CENTRAL_NOISE);
  c.add("privacy", "bound", noise);
  c.add("aggregator", "mean", HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ELEMENTWISE_MEAN | HANSA_TRAIT_ORDER_FREE);
  c.add("aggregator", "middle", HANSA_TRAIT_NEEDS_INDIVIDUALS);
  c.add("aggregator", "exact_mean", HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_EXACT);
  c.add("aggregator", "gossip", HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_RELEASES_INDIVIDUALS);
  auto& wrapper =
      c.add("aggregator", "wrapper",
            Schema<FakeWrapperParams>()
                .param(&FakeWrapperParams::inner, "inner", "What to wrap.", of_kind("aggregator"), required())
                .param(&FakeWrapperParams::depth, "depth", "How deep it goes."));
  wrapper.trait_flags = [](const HansaValue& params) {
    const auto* inner = find(params, "inner");  // required, so a search by traits asks without it
    return inner ? static_cast<std::uint64_t>(inner->integer) & HANSA_TRAIT_ORDER_FREE : 0;
  };
  wrapper.check = [](const HansaValue& params, HansaProblems* problems) {
    if (find(params, "depth")->integer == 13)
      problems->add(problems->context, "depth", "13 brings bad luck", "choose 12 or 14");
    if (find(params, "inner")->integer & HANSA_TRAIT_RELEASES_INDIVIDUALS)
      problems->add(problems->context, "inner", "tells too much", "wrap another rule");
  };
  c.add("server_optimizer", "add", HANSA_TRAIT_PLAIN_AVERAGING);
  c.add("server_optimizer", "momentum");
  c.add("selector", "all", HANSA_TRAIT_EVERYONE);
  c.add("selector", "coin", HANSA_TRAIT_POISSON);
  c.add("selector", "few");
  c.add("round_policy", "hasty", HANSA_TRAIT_CLOSES_EARLY).maturity = HANSA_BETA;
  c.add("round_policy", "wait");
  return c;
}

}  // namespace hansa::config
