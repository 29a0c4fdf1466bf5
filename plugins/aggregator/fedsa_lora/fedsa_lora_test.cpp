#include "fedsa_lora.hpp"

#include <ATen/ops/full.h>
#include <hansa/layouts.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "test.hpp"

using namespace hansa;
using fedsa_lora::FedSaLora;

namespace {

const Layout kLayout{{{"q.lora_A", DType::f32, {2, 5}},
                      {"q.lora_B", DType::f32, {4, 2}},
                      {"v.lora_A", DType::f32, {2, 5}},
                      {"v.lora_B", DType::f32, {3, 2}}},
                     {{"lora", {0, 1}, 2}, {"lora", {2, 3}, 2}}};

}  // namespace

TEST_CASE("A is shared and B personal, in every round and on every node") {
  for (Round round : {1, 2, 7}) {
    const auto exchange = FedSaLora().exchange(kLayout, {.round = round}, {.node = round});
    CHECK((exchange.roles == std::vector<Role>{Role::Shared, Role::Personal, Role::Shared, Role::Personal}));
    const auto travels = part_of(kLayout, exchange.roles, {Role::Shared, Role::Frozen});
    REQUIRE(travels.tensors.size() == 2);
    CHECK(travels.tensors[0].name == "q.lora_A");
    CHECK(travels.tensors[1].name == "v.lora_A");
    CHECK((exchange.up.empty() && exchange.down.empty()));
  }
}

TEST_CASE("what is no low-rank pair is refused by name") {
  const Layout lone{{{"norm.weight", DType::f32, {4}}}, {{"", {0}}}};
  CHECK_THROWS_WITH(FedSaLora().exchange(lone, {.round = 1}, {}), Catch::Contains("'norm.weight' is no part of one"));
}

TEST_CASE("the shared factor alone is reduced, to its weighted sum") {
  testing::FakeUpdates updates({"lora", {0}, 2}, {{"q.lora_A", DType::f32, {2, 5}}});
  updates.add({.node = 1, .weight = 1}, {at::full({2, 5}, 0.5)});
  updates.add({.node = 2, .weight = 3}, {at::full({2, 5}, -1.0)});
  testing::FakeResults results;
  FedSaLora().reduce(updates, results);
  CHECK(results.puts() == 1);
  CHECK(results.put_at(0).equal(at::full({2, 5}, -2.5)));
}
