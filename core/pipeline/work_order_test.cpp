#include "pipeline/work_order.hpp"

#include <nlohmann/json.hpp>

#include "test.hpp"

using namespace hansa;
using namespace hansa::pipeline;

namespace {

WorkOrder full_order() {
  WorkOrder order;
  order.plan = {12, 3, 11, 1000, 31.5, 0.0315, {{5, 10}, {9, 20}}};
  order.rounds = 40;
  order.clip_bound = 0.1;
  Layout layout;
  layout.tensors = {{"model.layers.0.q.A", DType::f32, {8, 64}}, {"seeds", DType::i64, {-1}}};
  layout.groups = {{"lora", {1, 0}, 2.5}};
  order.exchange.view = "half";
  order.exchange.roles = {Role::Shared, Role::Personal};
  order.exchange.up.push_back({"adapter", layout, Carry::Sum, Keep::Latest, false});
  order.exchange.down.push_back({"log", layout, Carry::Collect, Keep::Log, true});
  return order;
}

}  // namespace

TEST_CASE("a work order comes back from its text as it was, but for the cohort, which is private") {
  const auto order = full_order();
  const auto text = to_json(order);
  CHECK(text.find("cohort\"") == text.find("expected_cohort\"") + 9);
  const auto back = work_order_from_json(text);
  CHECK(back.plan.cohort.empty());
  CHECK(back.plan.round == 12);
  CHECK(back.plan.attempt == 3);
  CHECK(back.plan.base == 11);
  CHECK(back.plan.population == 1000);
  CHECK(back.plan.expected_cohort == 31.5);
  CHECK(back.plan.sampling_rate == 0.0315);
  CHECK(back.rounds == 40);
  CHECK(back.clip_bound == 0.1);
  CHECK(back.exchange.view == "half");
  CHECK((back.exchange.roles == order.exchange.roles));
  REQUIRE(back.exchange.up.size() == 1);
  CHECK(back.exchange.up[0].layout == order.exchange.up[0].layout);
  REQUIRE(back.exchange.down.size() == 1);
  CHECK(back.exchange.down[0].carry == Carry::Collect);
  CHECK(back.exchange.down[0].keep == Keep::Log);
  CHECK(back.exchange.down[0].for_trainer);
  CHECK(to_json(back) == text);
}

TEST_CASE("no clip bound is infinity on both sides") {
  auto order = full_order();
  order.clip_bound = std::numeric_limits<double>::infinity();
  CHECK(work_order_from_json(to_json(order)).clip_bound == order.clip_bound);
}

TEST_CASE("a text that is no work order is refused with a sentence") {
  const auto whole = nlohmann::json::parse(to_json(full_order()));
  for (const auto* text : {"", "{", "[]", "{}", "null"}) {
    CHECK_THROWS_WITH(work_order_from_json(text), Catch::Contains("the same version of hansa?"));
  }
  for (const auto& [key, value] : whole.items()) {
    if (key == "clip_bound") continue;
    auto lacking = whole;
    lacking.erase(key);
    CHECK_THROWS_WITH(work_order_from_json(lacking.dump()), Catch::Contains(key));
  }
  auto bad = whole;
  bad["up"][0]["layout"]["groups"][0]["members"][0] = 2;
  CHECK_THROWS_WITH(work_order_from_json(bad.dump()), Catch::Contains("a group names tensor 2 of 2"));
  bad = whole;
  bad["up"][0]["layout"]["tensors"][0]["dtype"] = 99;
  CHECK_THROWS_WITH(work_order_from_json(bad.dump()), Catch::Contains("unknown dtype 99"));
}

TEST_CASE("seeds: the common one is the round's, the others are the node's too") {
  CHECK(common_seed(1, 2) == common_seed(1, 2));
  CHECK(common_seed(1, 2) != common_seed(1, 3));
  CHECK(own_seed(1, 2, 5) != own_seed(1, 2, 6));
  CHECK(own_seed(1, 2, 5) != common_seed(1, 2));
  CHECK(training_seed(1, 2, 5) != own_seed(1, 2, 5));
}
