#include "bucketing.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <hansa/plugin.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/counting_updates.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "base/rng.hpp"
#include "plugin_host/instance.hpp"
#include "test.hpp"

using namespace hansa;
using bucketing::Bucketing, bucketing::Buckets, bucketing::Params, bucketing::draw;
using testing::FakeResults, testing::FakeUpdates;

namespace {

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  auto made = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < made.numel(); ++i) made.mutable_data_ptr<float>()[i] = normal(engine);
  return made;
}
double weight_of(NodeId node) { return 0.5 + static_cast<double>(node * 7 % 5); }

FakeUpdates cohort(const std::vector<NodeId>& nodes) {
  FakeUpdates updates({"", {0, 1}}, {{"a", DType::f32, {13, 3}}, {"b", DType::f32, {50}}});
  updates.stand({random_tensor({13, 3}, 1000), random_tensor({50}, 1001)});
  for (auto node : nodes)
    updates.add({.node = node, .weight = weight_of(node), .examples = 10 * node, .tokens = 100 * node, .steps = node},
                {random_tensor({3, 13}, node).t(), random_tensor({50}, 500 + node)});
  return updates;
}
std::vector<NodeId> up_to(NodeId last) {
  std::vector<NodeId> nodes;
  for (NodeId node = 1; node <= last; ++node) nodes.push_back(node);
  return nodes;
}
std::vector<std::set<NodeId>> drawn(const Updates& updates, std::size_t size, std::uint64_t seed) {
  std::vector<std::set<NodeId>> all;
  for (const auto& bucket : draw(updates, size, seed)) {
    all.emplace_back();
    for (auto client : bucket) all.back().insert(updates.who(client).node);
  }
  return all;
}

// Looks at everything that a rule may ask for; has state, a log and a channel of its own.
struct Curious : Aggregator {
  mutable std::vector<Contribution> seen;
  mutable std::vector<at::Tensor> values, slices;
  mutable std::size_t asked_for = 0;
  std::vector<std::string> told;
  bool collects = false;
  std::uint32_t state_version() const override { return 7; }
  void save(StateWriter& to) const override { to.put("k", "v"); }
  void load(const StateReader& from, std::uint32_t version) override {
    told.push_back(from.bytes("k") + std::to_string(version));
  }
  Exchange exchange(const Layout& trainable, const RoundPlan& plan, const NodeFacts& node) const override {
    auto exchange = Aggregator::exchange(trainable, plan, node);
    exchange.view = "narrow";
    if (collects) exchange.up.push_back({.name = "votes", .carry = Carry::Collect});
    return exchange;
  }
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override {
    asked_for = clients;
    return 1000 * clients;
  }
  void begin(const RoundPlan& plan) override { told.push_back("begin" + std::to_string(plan.round)); }
  bool surveys() const override { return true; }
  void survey(const Updates& updates) override { look(updates); }
  void reduce(const Updates& updates, Results& results) override {
    look(updates);
    for (std::size_t m = 0; m < updates.group().members.size(); ++m) results.put(m, updates.delta(0, m).clone());
  }
  Metrics finish(Results& results) override {
    results.append("log", "t", random_tensor({1}, 0));
    return {{"inner", 1}};
  }
  std::optional<NamedTensors> compact(std::string_view channel, std::span<const Download>) const override {
    return NamedTensors{{std::string(channel), {}}};
  }
  void look(const Updates& updates) const {
    seen.clear(), values.clear(), slices.clear();
    for (std::size_t c = 0; c < updates.clients(); ++c) {
      seen.push_back(updates.who(c));
      for (std::size_t m = 0; m < updates.group().members.size(); ++m) {
        values.push_back(updates.value(c, m).clone());
        slices.push_back(updates.slice(c, m, 5, 20).clone());
      }
    }
  }
};
struct InnerHost : testing::QuietHost {
  std::shared_ptr<Curious> inner = std::make_shared<Curious>();
  std::shared_ptr<void> create_inner(std::string_view kind, const HansaValue& choice) override {
    CHECK(kind == "aggregator/1");
    CHECK(text_of(choice) == "curious");
    return std::shared_ptr<Aggregator>(inner);
  }
};
Params curious(std::int64_t size) { return {{"curious", Value::component("curious"), 0}, size}; }

}  // namespace

TEST_CASE("every client is in one bucket, all but one bucket are full, and the draw changes with the round alone") {
  for (std::size_t n : {1, 2, 3, 7, 8, 20})
    for (std::size_t size : {1, 2, 3, 50}) {
      const auto updates = cohort(up_to(n));
      const auto buckets = drawn(updates, size, 5);
      CHECK(buckets.size() == (n + size - 1) / size);
      std::set<NodeId> all;
      std::size_t short_ones = 0;
      for (const auto& bucket : buckets) {
        all.insert(bucket.begin(), bucket.end());
        short_ones += bucket.size() != std::min(n, size) ? 1 : 0;
      }
      CHECK(all.size() == n);
      CHECK(short_ones <= 1);
      CHECK(drawn(updates, size, 5) == buckets);
      for (std::size_t i = 1; i < buckets.size(); ++i) CHECK(*buckets[i - 1].begin() < *buckets[i].begin());
    }
  const auto updates = cohort(up_to(20));
  CHECK(drawn(updates, 2, 5) != drawn(updates, 2, 6));
  auto nodes = up_to(20);
  std::reverse(nodes.begin(), nodes.end());
  CHECK(drawn(cohort(nodes), 2, 5) == drawn(updates, 2, 5));
}

TEST_CASE("any two clients meet equally often") {
  const auto updates = cohort(up_to(6));
  std::map<std::pair<NodeId, NodeId>, int> met;
  constexpr int kDraws = 6000;
  for (std::uint64_t seed = 0; seed < kDraws; ++seed)
    for (const auto& bucket : drawn(updates, 2, seed * 0x9e3779b97f4a7c15ull))
      ++met[{*bucket.begin(), *bucket.rbegin()}];
  CHECK(met.size() == 15);
  for (const auto& [pair, times] : met)
    CHECK(std::abs(times - kDraws / 5) < 6 * 31);  // sigma sqrt(6000 · 0.2 · 0.8) = 31
}

TEST_CASE("a bucket is a client whose change, value and slice are the weighted means, and whose claims are the sums") {
  const auto updates = cohort(up_to(7));
  const auto buckets = draw(updates, 3, 9);
  const Buckets view(updates, 3, 9);
  REQUIRE(view.clients() == 3);
  for (std::size_t b = 0; b < 3; ++b) {
    double weight = 0;
    std::uint64_t nodes = 0;
    for (auto c : buckets[b]) weight += updates.who(c).weight, nodes += updates.who(c).node;
    CHECK(view.who(b).weight == Approx(weight).epsilon(1e-12));
    CHECK(view.who(b).examples == 10 * nodes);
    CHECK(view.who(b).tokens == 100 * nodes);
    CHECK(view.who(b).steps == nodes);
    CHECK(view.who(b).node == updates.who(buckets[b][0]).node);
    for (std::size_t m = 0; m < 2; ++m) {
      const auto delta = view.delta(b, m), value = view.value(b, m), slice = view.slice(b, m, 5, 20);
      REQUIRE(delta.sizes() == at::IntArrayRef(updates.tensor(m).shape));
      const auto flat_delta = delta.contiguous(), flat_value = value.contiguous();
      for (std::int64_t i = 0; i < delta.numel(); ++i) {
        double want = 0, want_value = 0;
        for (auto c : buckets[b]) {
          want += updates.who(c).weight / weight * updates.delta(c, m).contiguous().const_data_ptr<float>()[i];
          want_value += updates.who(c).weight / weight * updates.value(c, m).contiguous().const_data_ptr<float>()[i];
        }
        CHECK(flat_delta.const_data_ptr<float>()[i] == Approx(want).margin(2e-6));
        CHECK(flat_value.const_data_ptr<float>()[i] == Approx(want_value).margin(2e-6));
      }
      CHECK(at::equal(slice, flat_delta.flatten().narrow(0, 5, 20)));  // bit for bit
    }
  }
}

TEST_CASE("clients without weight are averaged equally, a bucket of one is that client, inputs are untouched") {
  FakeUpdates updates({"", {0}}, {{"a", DType::f32, {2}}});
  updates.add({.node = 1, .weight = 0}, {at::empty({2}).fill_(1)});
  updates.add({.node = 2, .weight = 0}, {at::empty({2}).fill_(4)});
  CHECK(Buckets(updates, 2, 1).delta(0, 0).const_data_ptr<float>()[1] == 2.5f);
  CHECK(at::equal(Buckets(updates, 1, 1).delta(1, 0), at::empty({2}).fill_(4)));
  CHECK(at::equal(updates.delta(0, 0), at::empty({2}).fill_(1)));
}

TEST_CASE("the inner rule sees the same buckets in both passes, new ones in the next round, and keeps its own state") {
  InnerHost host;
  Bucketing rule(curious(2), host);
  const auto updates = cohort(up_to(9));
  const auto nodes_seen = [&] {
    std::vector<NodeId> nodes;
    for (const auto& who : host.inner->seen) nodes.push_back(who.steps);
    return nodes;
  };
  const auto round = [&](Round number) {
    RoundPlan plan;
    plan.round = number;
    rule.begin(plan);
    REQUIRE(rule.surveys());
    rule.survey(updates);
    const auto first = nodes_seen();
    FakeResults results;
    rule.reduce(updates, results);
    CHECK(nodes_seen() == first);
    CHECK(results.puts() == 2);
    return first;
  };
  const auto one = round(1);
  CHECK(one.size() == 5);
  CHECK(round(2) != one);
  CHECK(round(1) == one);  // repeated after a kill
  CHECK(host.inner->told == std::vector<std::string>{"begin1", "begin2", "begin1"});
  CHECK(rule.state_version() == 7);
  FakeResults results;
  CHECK(rule.finish(results) == Metrics{{"inner", 1}});
  CHECK(results.appended("log", "t").numel() == 1);
  CHECK(rule.compact("log", {})->front().first == "log");
  CHECK(rule.exchange({}, {}, {}).view == "narrow");
  host.inner->collects = true;
  CHECK_THROWS_WITH(rule.exchange({}, {}, {}), Catch::Contains("channel of its own ('votes')"));
}

TEST_CASE("the workspace is the inner rule's for the number of buckets, and one client's tensor") {
  InnerHost host;
  const Bucketing rule(curious(3), host);
  const Layout layout{{{"a", DType::f32, {13, 3}}, {"b", DType::f32, {50}}}, {{"", {0, 1}}}};
  CHECK(rule.workspace(layout, layout.groups[0], 10) == 4000 + 200);
  CHECK(host.inner->asked_for == 4);
  const auto updates = cohort(up_to(10));
  const testing::CountingUpdates counted(updates);
  const Buckets view(counted, 3, 1);
  for (std::size_t b = 0; b < view.clients(); ++b) view.delta(b, 1);
  CHECK(counted.most_bytes() == 200);
}

TEST_CASE("clients of unlike shapes cannot share a bucket") {
  auto updates = cohort(up_to(3));
  updates.add_view("wide", {{"a", DType::f32, {13, 3}}, {"b", DType::f32, {60}}});
  updates.add({.node = 9, .view = "wide"}, {random_tensor({13, 3}, 1), random_tensor({60}, 1)});
  CHECK_THROWS_WITH(Buckets(updates, 4, 1), Catch::Contains("'b' differs between clients"));
  CHECK_NOTHROW(Buckets(updates, 1, 1));
}

TEST_CASE("the traits are the inner rule's, as far as buckets keep them") {
  const auto with = [](std::uint64_t inner) { return bucketing::traits({{"x", {}, inner}, 2}); };
  CHECK((
      with(HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_STATELESS | HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_EXACT) ==
      (HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_STATELESS | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_ELEMENTWISE_MEAN)));
  CHECK((with(HANSA_TRAIT_RELEASES_INDIVIDUALS) & HANSA_TRAIT_RELEASES_INDIVIDUALS) != 0);
}

TEST_CASE("from their files: krum and the median behind bucketing choose as on buckets made by hand") {
  const auto folder = std::filesystem::path(HANSA_PLUGIN_FILE).parent_path();
  StrategyRegistry registry;
  for (const auto* name : {"bucketing", "krum", "median", "fedavg"})
    registry.scan({folder / (std::string("hansa_") + name + ".so"), "the test"});
  const HostServices services{.run_seed = 42};
  RoundPlan plan;
  plan.round = 3;
  auto nodes = up_to(16);
  const auto updates = cohort(nodes);
  const auto seed = [&] {  // as the host and the rule derive it
    DefaultHost host(registry, require(registry, "aggregator/1", "bucketing"), services);
    return host.seed("buckets");
  }();
  for (const auto* name : {"krum", "median"}) {
    const auto params = Value::table({{"inner", Value::component(name)}, {"size", Value::integer(2)}});
    const auto rule = create<Aggregator>(registry, "bucketing", params, services);
    rule->begin(plan);
    if (rule->surveys()) rule->survey(updates);
    FakeResults got(&updates);
    rule->reduce(updates, got);

    const auto alone = create<Aggregator>(registry, name, Value(), services);
    const Buckets buckets(updates, 2, derive_seed(seed, "round", {3}));
    FakeUpdates by_hand(updates.group(), {updates.tensor(0), updates.tensor(1)});
    for (std::size_t b = 0; b < buckets.clients(); ++b)
      by_hand.add(buckets.who(b), {buckets.delta(b, 0), buckets.delta(b, 1)});
    alone->begin(plan);
    if (alone->surveys()) alone->survey(by_hand);
    FakeResults want(&by_hand);
    alone->reduce(by_hand, want);
    for (std::size_t m = 0; m < 2; ++m) CHECK(at::equal(got.put_at(m), want.put_at(m)));
  }
  const auto sum = Value::table({{"inner", Value::component("fedavg", {}, HANSA_TRAIT_ADDITIVE)}});
  CHECK_THROWS_WITH(create<Aggregator>(registry, "bucketing", sum, services), Catch::Contains("weighted sum"));
}
