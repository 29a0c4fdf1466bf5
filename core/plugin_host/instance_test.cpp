#include <ATen/core/Tensor.h>
#include <hansa/aggregator.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "plugin_host/instance.hpp"

#include <chrono>
#include <mutex>
#include <set>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

struct Loaded {
  Loaded() { registry.scan({HANSA_FIXTURES "/good", "test"}); }
  StrategyRegistry registry;
};
double finish_value(Aggregator& rule, std::string_view name) {
  testing::FakeResults none;
  for (const auto& [key, value] : rule.finish(none))
    if (key == name) return value;
  return -1;
}
}  // namespace

TEST_CASE("A component is made with its parameters, defaults filled in, and works through its interface") {
  Loaded l;
  const auto rule =
      create<Aggregator>(l.registry, "sum", Value::table({{"floor", Value::real(0.25)}}), HostServices{.run_seed = 7});
  CHECK(finish_value(*rule, "floor") == 0.25);
  CHECK(rule->workspace({}, {}, 3) == 3);
  CHECK(rule->state_version() == 0);
}

TEST_CASE("Seeds depend on the run, the component and the purpose, and on nothing else") {
  Loaded l;
  const auto seed = [&](std::uint64_t run) {
    return finish_value(*create<Aggregator>(l.registry, "sum", Value(), HostServices{.run_seed = run}), "seed");
  };
  CHECK(seed(1) == seed(1));
  CHECK(seed(1) != seed(2));
}

TEST_CASE("A constructor that throws, a check that fails and wrong parameters say so, with the component's name") {
  Loaded l;
  const auto make = [&](Value params) { create<Aggregator>(l.registry, "sum", params, HostServices{}); };
  CHECK_THROWS_WITH(make(Value::table({{"mode", Value::choice("stochastic")}, {"floor", Value::real(0.5)}})),
                    "aggregator sum 1.2.3 failed in its constructor: floor and mode do not go together");
  CHECK_THROWS_WITH(make(Value::table({{"cap", Value::integer(2)}, {"floor", Value::real(1)}})),
                    "aggregator sum 1.2.3 failed in the check of its parameters: parameter 'cap' is below ten times "
                    "the floor (raise cap)");
  CHECK_THROWS_WITH(
      make(Value::table({{"floor", Value::real(2)}})),
      "aggregator sum 1.2.3 failed in the check of its parameters: parameter 'floor' is 2, but must be 0 to 1");
  CHECK_THROWS_WITH(make(Value::table({{"flor", Value::real(0)}})), "aggregator 'sum' has no parameter 'flor'");
  CHECK_THROWS_WITH(create<Aggregator>(l.registry, "wrap", Value(), HostServices{}),
                    "aggregator 'wrap' needs the parameter 'inner'");
  CHECK_THROWS_WITH(create<Aggregator>(l.registry, "median", Value(), HostServices{}),
                    "no aggregator is named 'median'; there are: sum, wrap");
}

TEST_CASE("A component may hold another one, made by the host") {
  Loaded l;
  const auto inner = [](const char* name, std::vector<std::pair<std::string, Value>> params) {
    return Value::table({{"inner", Value::component(name, std::move(params))}});
  };
  const auto rule = create<Aggregator>(l.registry, "wrap", inner("sum", {{"floor", Value::real(1)}}), HostServices{});
  CHECK(rule->workspace({}, {}, 3) == 4);
  const auto twice = Value::table({{"inner", Value::component("wrap", {{"inner", Value::component("sum")}})}});
  CHECK(create<Aggregator>(l.registry, "wrap", twice, HostServices{})->workspace({}, {}, 3) == 5);
  CHECK_THROWS_WITH(create<Aggregator>(l.registry, "wrap", inner("nobody", {}), HostServices{}),
                    Catch::Contains("no aggregator is named 'nobody'"));
}

TEST_CASE("The guard names component, version, round, node and tensor, and lets pass what the host tells apart") {
  Loaded l;
  const auto rule = create<Aggregator>(l.registry, "sum", Value(), HostServices{});
  const testing::FakeUpdates updates({}, {});
  testing::FakeResults results;
  const CallPlace place{.doing = "reduce", .round = 3, .node = 0xab, .tensor = "layer.0.weight"};
  try {
    guard(rule, place, [&](Aggregator& a) { a.reduce(updates, results); });
    FAIL("nothing was thrown");
  } catch (const PluginFailure& e) {
    CHECK(std::string(e.what()) ==
          "aggregator sum 1.2.3 failed in reduce, round 3, node 00000000000000ab, tensor layer.0.weight: nothing to "
          "reduce");
    CHECK(e.reason() == "nothing to reduce");
    CHECK(e.round() == Round{3});
    CHECK(e.tensor() == "layer.0.weight");
  }
  CHECK_THROWS_WITH(guard(rule, {.doing = "reduce"}, [](Aggregator&) { throw 3; }),
                    "aggregator sum 1.2.3 failed in reduce: something that is not a std::exception was thrown");
  // Built-in plugins and the host's callbacks throw Error: that is the component's failure too.
  CHECK_THROWS_WITH(guard(rule, place, [](Aggregator&) { throw Error("training diverged"); }),
                    "aggregator sum 1.2.3 failed in reduce, round 3, node 00000000000000ab, tensor layer.0.weight: "
                    "training diverged");
  // Those that somebody tells apart stay what they are, and a failure further in keeps its own name and place.
  CHECK_THROWS_AS(guard(rule, place, [](Aggregator&) { throw DiskFull("the disk is full"); }), DiskFull);
  CHECK_THROWS_WITH(
      guard(rule, place, [](Aggregator&) { throw PluginFailure("codec x 1", {.doing = "decode"}, "no"); }),
      "codec x 1 failed in decode: no");
  try {
    guard(rule, place, [](Aggregator&) { TORCH_CHECK(false, "shapes differ"); });
  } catch (const PluginFailure& e) {
    CHECK(e.reason() == "shapes differ");  // no backtrace
  }
  CHECK(guard(rule, {.doing = "workspace"}, [](Aggregator& a) { return a.workspace({}, {}, 2); }) == 2);
}

TEST_CASE("A guarded call costs far less than a microsecond") {
  Loaded l;
  const auto rule = create<Aggregator>(l.registry, "sum", Value(), HostServices{});
  const Layout layout;
  const Group group;
  constexpr int kCalls = 1'000'000;
  std::uint64_t sum = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i)
    sum += guard(rule, {.doing = "workspace", .round = 1, .tensor = "t"},
                 [&](Aggregator& a) { return a.workspace(layout, group, 1); });
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  CHECK(sum == kCalls);
  CHECK(took.count() / kCalls < 1);
}

TEST_CASE("The host hands out threads, cancellation and progress") {
  Loaded l;
  std::atomic<bool> cancelled = false;
  std::string seen;
  DefaultHost host(
      l.registry, *l.registry.find("aggregator", "sum"),
      {.cancelled = &cancelled, .progress = [&](std::string_view who, std::uint64_t done, std::uint64_t total) {
         seen = std::string(who) + " " + std::to_string(done) + "/" + std::to_string(total);
       }});
  CHECK_FALSE(host.cancelled());
  cancelled = true;
  CHECK(host.cancelled());
  host.progress(2, 5);
  CHECK(seen == "aggregator sum 1.2.3 2/5");
  std::mutex mutex;
  std::set<std::size_t> done;
  host.parallel_for(100, [&](std::size_t i) {
    std::lock_guard lock(mutex);
    done.insert(i);
  });
  CHECK(done.size() == 100);
  CHECK_THROWS_WITH(host.parallel_for(10,
                                      [](std::size_t i) {
                                        if (i == 3) throw std::runtime_error("three");
                                      }),
                    "three");
  host.parallel_for(0, [](std::size_t) { FAIL("called for nothing"); });
}
