#include "test.hpp"

#include <algorithm>
#include <set>

#include "config/fake_catalog.hpp"
#include "pipeline/rules.hpp"

namespace hansa::pipeline {
namespace {

using config::FakeCatalog;
using config::RunSpec;

// A pipeline of made-up components, as the resolver would give it.
struct Bench {
  FakeCatalog catalog = config::fake_catalog();
  RunSpec spec;
  Bench() {
    set(spec.adapter, "adapter", "everything");
    set(spec.aggregator, "aggregator", "mean");
    set(spec.server_optimizer, "server_optimizer", "add");
    set(spec.selector, "selector", "all");
    set(spec.round_policy, "round_policy", "wait");
    spec.weights.weighting = "uniform";
  }
  void set(config::ComponentSpec& to, const char* kind, const char* name) {
    to = {};
    to.kind = kind;
    to.use = name;
    to.component = catalog.find(kind, name);
    REQUIRE(to.component != nullptr);
    to.component->traits(to.component, &to.params.raw(), &to.traits);
  }
  std::set<int> broken(const Layout* layout = nullptr, const Exchange* exchange = nullptr) const {
    std::set<int> numbers;
    for (const auto& rule : static_rules())
      if (rule.look({spec, catalog, layout, exchange})) numbers.insert(rule.number);
    return numbers;
  }
  Finding finding(int number) const {
    for (const auto& rule : static_rules())
      if (rule.number == number)
        if (auto found = rule.look({spec, catalog, nullptr})) return *found;
    return {};
  }
};

}  // namespace

TEST_CASE("a sound pipeline breaks no rule, with and without central DP") {
  Bench b;
  CHECK(b.broken().empty());
  b.set(b.spec.privacy, "privacy", "noise");
  CHECK(b.broken().empty());
  b.set(b.spec.selector, "selector", "coin");
  CHECK(b.broken().empty());
}

TEST_CASE("rule 7: weights under central DP must be uniform or capped") {
  Bench b;
  b.spec.weights.weighting = "examples";
  CHECK(b.broken().empty());
  b.set(b.spec.privacy, "privacy", "noise");
  CHECK(b.broken() == std::set{7});
  b.spec.weights.max_weight = 3;
  CHECK(b.broken().empty());
}

TEST_CASE("rule 9: a fixed cohort or an early close changes what may be claimed") {
  Bench b;
  b.set(b.spec.privacy, "privacy", "noise");
  b.set(b.spec.selector, "selector", "few");
  CHECK(b.broken() == std::set{9});
  CHECK(adjacency_of(b.spec) == Adjacency::ZeroOut);
  CHECK(b.finding(9).help.find("use the selector `coin` or `all`") != std::string::npos);
  b.set(b.spec.selector, "selector", "coin");
  CHECK(adjacency_of(b.spec) == Adjacency::AddRemove);
  b.set(b.spec.round_policy, "round_policy", "hasty");
  CHECK(b.broken() == std::set{9});
  CHECK(b.finding(9).key == "round_policy.use");
  b.set(b.spec.privacy, "privacy", "bound");
  CHECK(b.broken().empty());
}

TEST_CASE("rules 10 and 11: error memory and who is asked") {
  Bench b;
  b.spec.error_feedback = config::FeedbackSection{};
  CHECK(b.broken().empty());
  b.set(b.spec.privacy, "privacy", "noise");
  CHECK(b.broken().empty());  // everybody, every round: nothing is amplified
  b.set(b.spec.selector, "selector", "coin");
  CHECK(b.broken() == std::set{10, 11});
  b.spec.privacy = {};
  CHECK(b.broken() == std::set{11});
  b.set(b.spec.selector, "selector", "all");
  b.set(b.spec.privacy, "privacy", "noise");
  b.spec.privacy.traits.flags = HANSA_TRAIT_LOCAL_NOISE;
  CHECK(b.broken() == std::set{10});
}

TEST_CASE("rule 12: ranks may differ only under a rule that says so") {
  Bench b;
  b.spec.nodes = {{.name = "a"}, {.name = "b", .rank = 4, .listed = 1}};
  CHECK(b.broken() == std::set{12});
  CHECK(b.finding(12).key == "node.1.rank");
  b.spec.aggregator.traits.flags |= HANSA_TRAIT_RANK_AWARE;
  CHECK(b.broken().empty());
}

TEST_CASE("rule 14: under DP nothing goes past clip and noise") {
  Bench b;
  Exchange exchange;
  exchange.up = {{"adapter"}, {"control", {}, Carry::Mean}};
  CHECK(b.broken(nullptr, &exchange).empty());
  b.set(b.spec.privacy, "privacy", "noise");
  CHECK(b.broken(nullptr, &exchange).empty());
  exchange.up.push_back({"seeds", {}, Carry::Collect});
  CHECK(b.broken(nullptr, &exchange) == std::set{14});
}

TEST_CASE("rule 13: plain means of low-rank factors are named once, and exact rules offered") {
  Bench b;
  b.set(b.spec.adapter, "adapter", "pairs");
  CHECK(b.broken() == std::set{13});
  CHECK(b.finding(13).help.find("use `exact_mean`") == 0);
  const Layout lone{{{"w", DType::f32, {4}}}, {{"", {0}}}};
  CHECK(b.broken(&lone).empty());  // the layout knows better than the traits
  const Layout pair{{{"A", DType::f32, {4}}, {"B", DType::f32, {4}}}, {{"lora", {0, 1}}}};
  CHECK(b.broken(&pair) == std::set{13});
  b.set(b.spec.aggregator, "aggregator", "exact_mean");
  CHECK(b.broken(&pair).empty());
}

TEST_CASE("rule 13 offers exact rules that would be legal, alone") {
  Bench b;
  b.catalog.add("aggregator", "exact_stacks", HANSA_TRAIT_EXACT | HANSA_TRAIT_RELEASES_INDIVIDUALS);
  b.set(b.spec.adapter, "adapter", "pairs");
  CHECK(b.finding(13).help.find("use `exact_mean` or `exact_stacks`;") == 0);
  b.set(b.spec.privacy, "privacy", "noise");  // under which stacks break rules 16 and 23
  CHECK(b.finding(13).help.find("use `exact_mean`;") == 0);
  b.set(b.spec.server_optimizer, "server_optimizer", "momentum");  // which undoes exactness: rule 22
  CHECK(b.finding(13).help.find("use `exact_mean`, with server optimiser `add` at its defaults;") == 0);
  b.spec.nodes = {{.name = "a"}, {.name = "b", .rank = 4, .listed = 1}};  // broken before and after, by all of them
  CHECK(b.finding(13).help.find("use `exact_mean`, with") == 0);
  b.spec.privacy = {};
  b.set(b.spec.server_optimizer, "server_optimizer", "add");
  b.catalog.add("aggregator", "exact_ranks", HANSA_TRAIT_EXACT | HANSA_TRAIT_RANK_AWARE);
  CHECK(b.finding(13).help.find("use `exact_ranks`;") == 0);
}

TEST_CASE("rule 16: noise needs a sum") {
  Bench b;
  b.set(b.spec.aggregator, "aggregator", "middle");
  CHECK(b.broken().empty());
  b.set(b.spec.privacy, "privacy", "noise");
  CHECK(b.broken() == std::set{16});
  b.spec.aggregator.traits.flags |= HANSA_TRAIT_STATES_SENSITIVITY;
  CHECK(b.broken().empty());
}

TEST_CASE("rule 17: whole numbers are not trained") {
  Bench b;
  const Layout layout{{{"w", DType::bf16, {4}}, {"codes", DType::i32, {4}}}, {{"", {0}}, {"", {1}}}};
  CHECK(b.broken(&layout) == std::set{17});
  const Layout real{{{"w", DType::bf16, {4}}}, {{"", {0}}}};
  CHECK(b.broken(&real).empty());
}

TEST_CASE("rule 19: under DP nothing about single nodes is published") {
  Bench b;
  b.spec.privacy_host.client_metrics = "publish";
  CHECK(b.broken().empty());
  b.set(b.spec.privacy, "privacy", "noise");
  CHECK(b.broken() == std::set{19});
}

TEST_CASE("rules 22 and 23: exactness is not undone, single contributions do not travel under DP") {
  Bench b;
  b.set(b.spec.aggregator, "aggregator", "exact_mean");
  b.set(b.spec.server_optimizer, "server_optimizer", "momentum");
  CHECK(b.broken() == std::set{22});
  b.set(b.spec.server_optimizer, "server_optimizer", "add");
  b.set(b.spec.aggregator, "aggregator", "gossip");
  CHECK(b.broken() == std::set{23});
}

TEST_CASE("a pipeline with holes breaks no rule: what is missing was reported before") {
  Bench b;
  b.spec = {};
  CHECK(b.broken().empty());
  b.set(b.spec.privacy, "privacy", "noise");
  b.spec.weights.weighting = "uniform";
  CHECK(b.broken().empty());
}

}  // namespace hansa::pipeline
