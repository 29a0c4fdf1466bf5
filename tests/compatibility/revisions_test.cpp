#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <hansa/testing/fake_updates.hpp>

#include "aggregator2.hpp"
#include "plugin_host/instance.hpp"
#include "test.hpp"

using namespace hansa;
using testing::FakeResults;
using testing::FakeUpdates;

namespace {

// All that both revisions have.
template <class Inner, class Outer>
class Forwarding : public Outer {
 public:
  explicit Forwarding(std::shared_ptr<Inner> inner) : inner_(std::move(inner)) {}
  std::uint32_t state_version() const override { return inner_->state_version(); }
  void save(StateWriter& writer) const override { inner_->save(writer); }
  void load(const StateReader& reader, std::uint32_t version) override { inner_->load(reader, version); }
  Exchange exchange(const Layout& trainable, const RoundPlan& plan, const NodeFacts& node) const override {
    return inner_->exchange(trainable, plan, node);
  }
  std::uint64_t workspace(const Layout& layout, const Group& group, std::size_t clients) const override {
    return inner_->workspace(layout, group, clients);
  }
  void begin(const RoundPlan& plan) override { inner_->begin(plan); }
  void collect(const Contribution& who, std::string_view channel, std::span<const at::Tensor> tensors) override {
    inner_->collect(who, channel, tensors);
  }
  bool surveys() const override { return inner_->surveys(); }
  void survey(const Updates& updates) override { inner_->survey(updates); }
  void reduce(const Updates& updates, Results& results) override { inner_->reduce(updates, results); }
  Metrics finish(Results& results) override { return inner_->finish(results); }
  std::optional<NamedTensors> compact(std::string_view channel, std::span<const Download> entries) const override {
    return inner_->compact(channel, entries);
  }

 protected:
  std::shared_ptr<Inner> inner_;
};

// A rule of revision 1, for a host that asks for revision 2: the usual direction. trust() is 1, as it was.
using AsSecond = Forwarding<Aggregator, next::Aggregator>;
// A rule of revision 2, for a host that asks for revision 1: the adapter does what tomorrow's host will do.
class AsFirst final : public Forwarding<next::Aggregator, Aggregator> {
 public:
  using Forwarding::Forwarding;
  void survey(const Updates& updates) override { inner_->survey(next::Trusted(updates, *inner_)); }
  void reduce(const Updates& updates, Results& results) override {
    inner_->reduce(next::Trusted(updates, *inner_), results);
  }
};

std::string hash_of_first() { return *find(host_note(), "kind.aggregator/1"); }
RevisionAdapter second_as_first() { return adapter<next::Aggregator, Aggregator, AsFirst>(HANSA_AGGREGATOR2_HASH); }
RevisionAdapter first_as_second() { return adapter<Aggregator, next::Aggregator, AsSecond>(hash_of_first()); }

// The host of tomorrow: its own headers say aggregator/2, the frozen first revision is known to an adapter alone.
BuildNote tomorrows_note() {
  auto note = host_note();
  for (auto& [key, value] : note)
    if (key == "kind.aggregator/1") key = "kind.aggregator/2", value = HANSA_AGGREGATOR2_HASH;
  return note;
}

void scan_all(StrategyRegistry& registry) {
  for (const auto* file : {HANSA_FEDAVG, HANSA_FIXTURE_GOOD, HANSA_NEXT}) registry.scan({file, "test"});
  for (const auto& file : registry.files()) CHECK(file.why.empty());
}

FakeUpdates three_clients() {
  FakeUpdates updates({"", {0, 1}}, {{"a", DType::f32, {4, 3}}, {"b", DType::f32, {5}}});
  for (int i = 0; i < 3; ++i)
    updates.add({.node = NodeId(10 + i), .weight = 1.0 + i}, {at::full({4, 3}, 0.25 + i), at::full({5}, -1.5 * i)});
  return updates;
}

template <class Interface>
FakeResults reduced(const StrategyRegistry& registry, std::string_view name, const Value& params = {}) {
  const auto rule = create<Interface>(registry, name, params, HostServices{});
  const auto updates = three_clients();
  FakeResults results;
  guard(rule, {.doing = "reduce"}, [&](Interface& r) { r.reduce(updates, results); });
  return results;
}
bool same(const FakeResults& a, const FakeResults& b) {
  return a.puts() == 2 && b.puts() == 2 && at::equal(a.put_at(0), b.put_at(0)) && at::equal(a.put_at(1), b.put_at(1));
}
Value inner(const char* name) { return Value::table({{"inner", Value::component(name)}}); }

// Hears what a component says when it goes.
class Listener final : public Host {
 public:
  void log(Level, std::string_view message) override { heard.emplace_back(message); }
  void progress(std::uint64_t, std::uint64_t) override {}
  bool cancelled() const override { return false; }
  void parallel_for(std::size_t, const std::function<void(std::size_t)>&) override {}
  std::uint64_t seed(std::string_view) const override { return 0; }
  std::vector<std::string> heard;
};

}  // namespace

TEST_CASE("One host serves two revisions of an interface at once: both reduce the same updates") {
  StrategyRegistry today(host_note(), {second_as_first()});
  scan_all(today);
  CHECK(std::string_view(today.find("aggregator", "doubt")->kind) == "aggregator/2");
  CHECK(std::string_view(today.find("aggregator", "fedavg")->kind) == "aggregator/1");
  CHECK(same(reduced<Aggregator>(today, "doubt"), reduced<Aggregator>(today, "fedavg")));

  StrategyRegistry tomorrow(tomorrows_note(), {first_as_second()});
  scan_all(tomorrow);
  CHECK(same(reduced<next::Aggregator>(tomorrow, "doubt"), reduced<next::Aggregator>(tomorrow, "fedavg")));
  CHECK(same(reduced<next::Aggregator>(tomorrow, "doubt"), reduced<Aggregator>(today, "doubt")));
}

TEST_CASE("An adapter brings what the other revision knows and this one does not") {
  StrategyRegistry registry(host_note(), {second_as_first()});
  scan_all(registry);
  const auto full = reduced<Aggregator>(registry, "fedavg");
  const auto doubted = reduced<Aggregator>(registry, "doubt", Value::table({{"node", Value::integer(12)}}));
  // Node 12 has weight 3 and the change 2.25, of which half counts.
  CHECK(at::equal(doubted.put_at(0), full.put_at(0).sub(0.5 * 3 * 2.25)));
}

TEST_CASE("A component of one revision may hold one of the other") {
  StrategyRegistry registry(host_note(), {second_as_first(), first_as_second()});
  scan_all(registry);
  const auto workspace = [&](std::string_view name, const Value& params) {
    return create<Aggregator>(registry, name, params, HostServices{})->workspace({}, {}, 3);
  };
  CHECK(workspace("wrap", inner("doubt")) == 301);  // 1 around 2
  CHECK(workspace("hold", inner("sum")) == 10);     // 2 around 1
  CHECK(same(reduced<Aggregator>(registry, "hold", inner("fedavg")), reduced<Aggregator>(registry, "fedavg")));
}

TEST_CASE("An adapted component is destroyed through its plugin, once, and fails under its own name") {
  StrategyRegistry registry(host_note(), {second_as_first()});
  scan_all(registry);
  Listener host;
  {
    auto rule = create<Aggregator>(registry, "doubt", Value(), host);
    const FakeUpdates nobody({"", {}}, {});
    FakeResults results;
    CHECK_THROWS_WITH(guard(rule, {.doing = "reduce", .round = 4}, [&](Aggregator& r) { r.reduce(nobody, results); }),
                      "aggregator doubt 2.0.0 failed in reduce, round 4: nobody came");
    auto moved = std::move(rule);
    CHECK((moved->finish(results) == Metrics{{"revision", 2}}));
    CHECK(host.heard.empty());
  }
  CHECK((host.heard == std::vector<std::string>{"doubt is gone"}));
}

TEST_CASE("Without an adapter a file of another revision is refused, and so is a component that would need one") {
  StrategyRegistry plain;
  plain.scan({HANSA_NEXT, "test"});
  CHECK_THAT(plain.files().front().why, Catch::Contains("built for aggregator/2, this host needs aggregator/1"));

  StrategyRegistry registry(host_note(), {second_as_first()});
  scan_all(registry);
  CHECK_THROWS_WITH(create<Aggregator>(registry, "hold", inner("fedavg"), HostServices{}),
                    Catch::Contains("aggregator fedavg 0.1.0 failed in its constructor: it is aggregator/1, but "
                                    "aggregator/2 is wanted, and this host adapts no such component"));
}

TEST_CASE("A file of an adapted revision is held to that revision's hash") {
  StrategyRegistry registry(host_note(), {adapter<next::Aggregator, Aggregator, AsFirst>("0123456789abcdef")});
  registry.scan({HANSA_NEXT, "test"});
  CHECK_THAT(registry.files().front().why, Catch::Contains("interface aggregator/2: built for " HANSA_AGGREGATOR2_HASH
                                                           ", this host needs 0123456789abcdef"));
}
