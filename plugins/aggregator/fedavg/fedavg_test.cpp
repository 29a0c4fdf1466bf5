#include "fedavg.hpp"

#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <hansa/testing/fake_updates.hpp>
#include <hansa/updates.hpp>

#include "test.hpp"

using namespace hansa;
using fedavg::FedAvg;
using testing::FakeResults;
using testing::FakeUpdates;

namespace {

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  auto made = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < made.numel(); ++i) made.mutable_data_ptr<float>()[i] = normal(engine);
  return made;
}

// Counts what is decoded.
struct Counted final : Decorated {
  using Decorated::Decorated;
  at::Tensor delta(std::size_t client, std::size_t member) const override {
    ++asked;
    return Decorated::delta(client, member);
  }
  mutable std::size_t asked = 0;
};

double weight_of(std::size_t client) { return 0.5 + static_cast<double>(client % 7); }
at::Tensor delta_of(std::size_t client, std::size_t member, const std::vector<std::int64_t>& shape) {
  return random_tensor(shape, 100 * client + member);
}

FakeUpdates cohort(std::size_t clients, const std::vector<std::vector<std::int64_t>>& shapes) {
  Group group;
  std::vector<TensorSpec> specs;
  for (Index m = 0; m < shapes.size(); ++m) {
    group.members.push_back(m);
    specs.push_back({"t" + std::to_string(m), DType::f32, shapes[m]});
  }
  FakeUpdates updates(group, specs);
  for (std::size_t c = 0; c < clients; ++c) {
    std::vector<at::Tensor> deltas;
    for (std::size_t m = 0; m < shapes.size(); ++m) deltas.push_back(delta_of(c, m, shapes[m]));
    updates.add({.node = c, .weight = weight_of(c)}, std::move(deltas));
  }
  return updates;
}

std::vector<at::Tensor> reduce(const Updates& updates) {
  FakeResults results;
  FedAvg().reduce(updates, results);
  std::vector<at::Tensor> sums;
  for (std::size_t m = 0; m < results.puts(); ++m) sums.push_back(results.put_at(m));
  return sums;
}

}  // namespace

TEST_CASE("fedavg gives the weighted sum of a naive reference in double, and decodes each tensor once") {
  const std::vector<std::vector<std::int64_t>> shapes{{33, 7}, {5}, {}, {0}};
  const auto updates = cohort(9, shapes);
  const Counted counted(updates);
  const auto sums = reduce(counted);
  REQUIRE(sums.size() == 4);
  for (std::size_t m = 0; m < sums.size(); ++m)
    for (std::int64_t i = 0; i < sums[m].numel(); ++i) {
      double want = 0, size = 0;
      for (std::size_t c = 0; c < 9; ++c) {
        const double term = weight_of(c) * updates.delta(c, m).const_data_ptr<float>()[i];
        want += term;
        size += std::abs(term);
      }
      CHECK(sums[m].const_data_ptr<float>()[i] == Approx(want).margin(size * 1e-6));
    }
  CHECK(counted.asked == 36);
}

TEST_CASE("the sum as one client gives the same sum: relays need no separate merge") {
  const auto sum = reduce(cohort(5, {{100}}));
  FakeUpdates relay({"", {0}}, {{"t0", DType::f32, {100}}});
  relay.add({.weight = 1}, sum);
  CHECK(at::equal(reduce(relay)[0], sum[0]));
}

TEST_CASE("nobody's sum is zero, one client's is its weighted delta, inputs are untouched") {
  CHECK(at::equal(reduce(cohort(0, {{4, 4}}))[0], at::zeros({4, 4})));
  const auto one = cohort(1, {{64}});
  const auto before = one.delta(0, 0).clone();
  CHECK(at::equal(reduce(one)[0], before.mul(0.5)));
  CHECK(at::equal(one.delta(0, 0), before));
}

TEST_CASE("an element's sum does not depend on what surrounds it") {
  const auto updates = cohort(6, {{1000}});
  FakeUpdates shifted({"", {0}}, {{"t0", DType::f32, {997}}});
  for (std::size_t c = 0; c < 6; ++c) shifted.add(updates.who(c), {updates.delta(c, 0).slice(0, 3, 1000).clone()});
  CHECK(at::equal(reduce(shifted)[0], reduce(updates)[0].slice(0, 3, 1000)));
}

TEST_CASE("clients whose shapes differ are refused") {
  auto updates = cohort(2, {{4}});
  updates.add({.node = 5}, {random_tensor({5}, 1)});
  CHECK_THROWS_WITH(reduce(updates), Catch::Contains("'t0' differs"));
}

TEST_CASE("the stated workspace is a sum and one delta of the largest member") {
  const Layout layout{{{"a", DType::f32, {10}}, {"b", DType::f32, {30}}}, {{"", {0, 1}}}};
  CHECK(FedAvg().workspace(layout, layout.groups[0], 50) == 240);
}
