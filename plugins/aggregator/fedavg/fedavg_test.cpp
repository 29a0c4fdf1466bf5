#include "fedavg.hpp"

#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include "test.hpp"

using namespace hansa;
using fedavg::FedAvg;

namespace {

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  auto made = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < made.numel(); ++i) made.mutable_data_ptr<float>()[i] = normal(engine);
  return made;
}

struct FakeUpdates final : Updates {
  Group lone{"", {0}};
  std::vector<TensorSpec> specs;
  std::vector<Contribution> people;
  std::vector<std::vector<at::Tensor>> deltas;  // [client][member]
  mutable std::size_t asked = 0;

  const Group& group() const override { return lone; }
  const TensorSpec& tensor(std::size_t member) const override { return specs.at(member); }
  std::size_t clients() const override { return people.size(); }
  const Contribution& who(std::size_t client) const override { return people.at(client); }
  at::Tensor delta(std::size_t client, std::size_t member) const override {
    ++asked;
    return deltas.at(client).at(member);
  }
  at::Tensor value(std::size_t, std::size_t) const override { throw std::logic_error("not asked for"); }
  at::Tensor slice(std::size_t, std::size_t, std::int64_t, std::int64_t) const override {
    throw std::logic_error("not asked for");
  }
};
struct FakeResults final : Results {
  std::vector<at::Tensor> sums;
  void put(std::size_t member, const at::Tensor& sum) override {
    sums.resize(std::max(sums.size(), member + 1));
    sums[member] = sum;
  }
  void put_slice(std::size_t, std::int64_t, const at::Tensor&) override { throw std::logic_error("not asked for"); }
};

FakeUpdates cohort(std::size_t clients, std::vector<std::vector<std::int64_t>> shapes) {
  FakeUpdates updates;
  updates.lone.members.clear();
  for (Index m = 0; m < shapes.size(); ++m) {
    updates.lone.members.push_back(m);
    updates.specs.push_back({"t" + std::to_string(m), DType::f32, shapes[m]});
  }
  for (std::size_t c = 0; c < clients; ++c) {
    Contribution who;
    who.node = c;
    who.weight = 0.5 + static_cast<double>(c % 7);
    updates.people.push_back(who);
    updates.deltas.emplace_back();
    for (const auto& shape : shapes)
      updates.deltas.back().push_back(random_tensor(shape, 100 * c + updates.deltas.back().size()));
  }
  return updates;
}

std::vector<at::Tensor> reduce(const FakeUpdates& updates) {
  FakeResults results;
  FedAvg().reduce(updates, results);
  return results.sums;
}

}  // namespace

TEST_CASE("fedavg gives the weighted sum of a naive reference in double") {
  const auto updates = cohort(9, {{33, 7}, {5}, {}, {0}});
  const auto sums = reduce(updates);
  REQUIRE(sums.size() == 4);
  for (std::size_t m = 0; m < sums.size(); ++m)
    for (std::int64_t i = 0; i < sums[m].numel(); ++i) {
      double want = 0, size = 0;
      for (std::size_t c = 0; c < 9; ++c) {
        const double term = updates.people[c].weight * updates.deltas[c][m].const_data_ptr<float>()[i];
        want += term;
        size += std::abs(term);
      }
      CHECK(sums[m].const_data_ptr<float>()[i] == Approx(want).margin(size * 1e-6));
    }
  CHECK(updates.asked == 36);
}

TEST_CASE("the sum as one client gives the same sum: relays need no separate merge") {
  const auto updates = cohort(5, {{100}});
  auto relay = cohort(1, {{100}});
  relay.people[0].weight = 1;
  relay.deltas[0] = reduce(updates);
  CHECK(at::equal(reduce(relay)[0], reduce(updates)[0]));
}

TEST_CASE("nobody's sum is zero, one client's is its weighted delta, inputs are untouched") {
  CHECK(at::equal(reduce(cohort(0, {{4, 4}}))[0], at::zeros({4, 4})));
  const auto one = cohort(1, {{64}});
  const auto before = one.deltas[0][0].clone();
  CHECK(at::equal(reduce(one)[0], before.mul(0.5)));
  CHECK(at::equal(one.deltas[0][0], before));
}

TEST_CASE("an element's sum does not depend on what surrounds it") {
  const auto updates = cohort(6, {{1000}});
  auto shifted = updates;
  for (auto& deltas : shifted.deltas) deltas[0] = deltas[0].slice(0, 3, 1000).clone();
  shifted.specs[0].shape = {997};
  CHECK(at::equal(reduce(shifted)[0], reduce(updates)[0].slice(0, 3, 1000)));
}

TEST_CASE("clients whose shapes differ are refused") {
  auto updates = cohort(2, {{4}});
  updates.deltas[1][0] = random_tensor({5}, 1);
  CHECK_THROWS_WITH(reduce(updates), Catch::Contains("'t0' differs"));
}

TEST_CASE("the stated workspace is a sum and one delta of the largest member") {
  const Layout layout{{{"a", DType::f32, {10}}, {"b", DType::f32, {30}}}, {{"", {0, 1}}}};
  CHECK(FedAvg().workspace(layout, layout.groups[0], 50) == 240);
}
