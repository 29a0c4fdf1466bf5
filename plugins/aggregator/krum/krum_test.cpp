#include "krum.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <hansa/plugin.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/counting_updates.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "test.hpp"

using namespace hansa;
using krum::Krum, krum::Params;
using testing::CountingUpdates, testing::FakeResults, testing::FakeUpdates;

namespace {

using Shapes = std::vector<std::vector<std::int64_t>>;

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  auto made = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < made.numel(); ++i) made.mutable_data_ptr<float>()[i] = normal(engine);
  return made;
}

// Two groups, because the distances are of all of them together.
struct Cohort {
  std::vector<FakeUpdates> groups;

  static Cohort of(const std::vector<Shapes>& groups_of_shapes) {
    Cohort cohort;
    Index next = 0;
    for (const auto& shapes : groups_of_shapes) {
      Group group{"", {}};
      std::vector<TensorSpec> specs;
      for (const auto& shape : shapes) {
        group.members.push_back(next);
        specs.push_back({std::string("t").append(std::to_string(next++)), DType::f32, shape});
      }
      cohort.groups.emplace_back(group, specs);
    }
    return cohort;
  }
  void add(NodeId node, std::vector<std::vector<at::Tensor>> deltas) {
    for (std::size_t g = 0; g < groups.size(); ++g)
      groups[g].add({.node = node, .weight = 1 + static_cast<double>(node % 5)}, deltas[g]);
  }
  void add_random(NodeId node, std::uint64_t seed) {
    std::vector<std::vector<at::Tensor>> deltas;
    for (const auto& group : groups) {
      deltas.emplace_back();
      for (std::size_t m = 0; m < group.group().members.size(); ++m)
        deltas.back().push_back(random_tensor(group.tensor(m).shape, seed + 1000 * deltas.size() + m));
    }
    add(node, deltas);
  }
  std::size_t clients() const { return groups[0].clients(); }
};

struct Reduced {
  std::vector<at::Tensor> tensors;
  Metrics metrics;
};
Reduced run(Krum& rule, const Cohort& cohort) {
  rule.begin({});
  for (const auto& group : cohort.groups) rule.survey(group);
  Reduced reduced;
  for (const auto& group : cohort.groups) {
    FakeResults results(&group);
    rule.reduce(group, results);
    for (std::size_t m = 0; m < group.group().members.size(); ++m) reduced.tensors.push_back(results.put_at(m));
  }
  FakeResults none;
  reduced.metrics = rule.finish(none);
  return reduced;
}
Reduced run(Params params, const Cohort& cohort) {
  testing::QuietHost host;
  Krum rule(params, host);
  return run(rule, cohort);
}

std::vector<double> flat(const Cohort& cohort, std::size_t client) {
  std::vector<double> all;
  for (const auto& group : cohort.groups)
    for (std::size_t m = 0; m < group.group().members.size(); ++m) {
      const auto delta = group.delta(client, m).contiguous();
      for (std::int64_t i = 0; i < delta.numel(); ++i) all.push_back(delta.const_data_ptr<float>()[i]);
    }
  return all;
}

// By the paper's definition, over flat vectors: the chosen clients, and their mean.
std::vector<double> naive(const Cohort& cohort, std::size_t f, std::size_t m) {
  const auto n = cohort.clients();
  std::vector<std::vector<double>> all;
  for (std::size_t c = 0; c < n; ++c) all.push_back(flat(cohort, c));
  std::vector<std::pair<double, NodeId>> scores;
  for (std::size_t i = 0; i < n; ++i) {
    std::multiset<double> distances;
    for (std::size_t j = 0; j < n; ++j) {
      if (j == i) continue;
      double sum = 0;
      for (std::size_t k = 0; k < all[i].size(); ++k) sum += (all[i][k] - all[j][k]) * (all[i][k] - all[j][k]);
      distances.insert(sum);
    }
    double score = 0;
    auto next = distances.begin();
    for (std::size_t k = 0; k < n - f - 2; ++k) score += *next++;
    scores.emplace_back(score, i);
  }
  std::sort(scores.begin(), scores.end());
  std::vector<double> mean(all[0].size());
  for (std::size_t k = 0; k < m; ++k)
    for (std::size_t x = 0; x < mean.size(); ++x) mean[x] += all[scores[k].second][x] / static_cast<double>(m);
  return mean;
}

void check_same(const Reduced& reduced, const std::vector<double>& want) {
  std::size_t k = 0;
  for (const auto& tensor : reduced.tensors)
    for (std::int64_t i = 0; i < tensor.numel(); ++i, ++k)
      if (std::abs(tensor.const_data_ptr<float>()[i] - want.at(k)) > 2e-6) FAIL("element " << k << " differs");
  CHECK(k == want.size());
}

}  // namespace

TEST_CASE("krum chooses and averages what the paper's definition chooses, over all tensors of all groups") {
  for (std::size_t n : {3, 4, 5, 8, 13, 20})
    for (std::size_t f = 0; 2 * f + 2 < n; ++f)
      for (std::size_t m = 1; m <= n - f; m += 2) {
        INFO("n " << n << ", f " << f << ", m " << m);
        auto cohort = Cohort::of({{{7, 5}, {3}}, {{}, {0}, {41}}});
        for (std::size_t c = 0; c < n; ++c) cohort.add_random(c, 7919 * c + n);
        const auto reduced = run({static_cast<std::int64_t>(f), static_cast<std::int64_t>(m)}, cohort);
        check_same(reduced, naive(cohort, f, m));
        CHECK(reduced.metrics == Metrics{{"krum_updates", double(n)}, {"krum_chosen", double(m)}});
      }
}

TEST_CASE("faulty clients that agree with each other are left out as long as they are at most f") {
  auto cohort = Cohort::of({{{50}}, {{20}}});
  for (std::uint64_t c = 0; c < 9; ++c) cohort.add_random(c, c);
  const auto bad = random_tensor({50}, 99).mul(5), tail = random_tensor({20}, 98).mul(5);
  for (std::uint64_t c = 9; c < 12; ++c) cohort.add(c, {{bad}, {tail}});
  const auto reduced = run({3, 4}, cohort);
  check_same(reduced, naive(cohort, 3, 4));
  CHECK(reduced.tensors[0].const_data_ptr<float>()[0] < 3);
  const auto one = run({3, 1}, cohort).tensors[0];
  bool honest = false;
  for (std::size_t c = 0; c < 9; ++c) honest = honest || at::equal(one, cohort.groups[0].delta(c, 0));
  CHECK(honest);  // and bit for bit
}

TEST_CASE("among equals the lower node is chosen, in whatever order the clients come") {
  const auto a = at::zeros({4}), b = at::empty({4}).fill_(1);  // two camps of three, each at distance 0 within
  for (const auto& order :
       std::vector<std::vector<NodeId>>{{1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1}, {4, 1, 6, 2, 5, 3}}) {
    auto cohort = Cohort::of({{{4}}});
    for (auto node : order) cohort.add(node, {{node <= 3 ? b : a}});
    CHECK(at::equal(run({1, 1}, cohort).tensors[0], b));
  }
}

TEST_CASE("the result does not depend on the order of clients, bit for bit") {
  std::vector<NodeId> order{1, 2, 3, 4, 5, 6, 7};
  Reduced first;
  for (int shuffle = 0; shuffle < 10; ++shuffle) {
    auto cohort = Cohort::of({{{100}}, {{30}}});
    for (auto node : order) cohort.add_random(node, node);
    const auto now = run({2, 4}, cohort);
    if (shuffle == 0) first = now;
    for (std::size_t t = 0; t < 2; ++t) CHECK(at::equal(now.tensors[t], first.tensors[t]));
    std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<unsigned>(shuffle)));
  }
}

TEST_CASE("slices that do not divide and non-contiguous deltas change nothing; inputs are untouched") {
  auto cohort = Cohort::of({{{5000}, {90, 70}}});
  for (std::uint64_t c = 0; c < 6; ++c) cohort.add_random(c, c);
  cohort.add(6, {{random_tensor({5000}, 50), random_tensor({70, 90}, 51).t()}});
  const auto before = cohort.groups[0].delta(6, 1).clone();
  const auto small = run({1, 3, KiB(64)}, cohort), large = run({1, 3}, cohort);
  for (std::size_t t = 0; t < 2; ++t) CHECK(at::equal(small.tensors[t], large.tensors[t]));
  check_same(large, naive(cohort, 1, 3));
  CHECK(at::equal(cohort.groups[0].delta(6, 1), before));
}

TEST_CASE("too few updates for f, and an m that reaches into the faulty ones, are refused") {
  for (std::size_t n : {1, 2, 3, 4}) {
    auto cohort = Cohort::of({{{4}}});
    for (std::size_t c = 0; c < n; ++c) cohort.add_random(c, c);
    CHECK_THROWS_WITH(run({1, 1}, cohort), Catch::Contains("krum needs more than 2f + 2 updates"));
  }
  auto nobody = Cohort::of({{{4}}});
  CHECK_THROWS_WITH(run({0, 1}, nobody), Catch::Contains("(0 updates, f = 0, m = 1)"));
  auto five = Cohort::of({{{4}}});
  for (std::size_t c = 0; c < 5; ++c) five.add_random(c, c);
  CHECK_NOTHROW(run({1, 4}, five));
  CHECK_THROWS_WITH(run({1, 5}, five), Catch::Contains("m > n - f (5 updates, f = 1, m = 5)"));
}

TEST_CASE("a round leaves nothing behind: the next one, and one after a failure, are as of a fresh rule") {
  testing::QuietHost host;
  Krum rule({1, 2}, host);
  auto first = Cohort::of({{{40}}}), second = Cohort::of({{{40}}});
  for (std::uint64_t c = 0; c < 6; ++c) first.add_random(c, c);
  for (std::uint64_t c = 0; c < 9; ++c) second.add_random(c, 100 + c);
  run(rule, first);
  CHECK(at::equal(run(rule, second).tensors[0], run({1, 2}, second).tensors[0]));
  rule.begin({});
  rule.survey(first.groups[0]);  // and the round is given up
  CHECK(at::equal(run(rule, second).tensors[0], run({1, 2}, second).tensors[0]));
  FakeResults results;
  CHECK_THROWS_WITH(rule.reduce(first.groups[0], results), Catch::Contains("without the survey"));
}

TEST_CASE(
    "the stated workspace bounds what is held, and everything is read once for the distances and once if chosen") {
  testing::QuietHost host;
  const Layout layout{{{"t0", DType::f32, {300000}}}, {{"", {0}}}};
  for (auto bound : {KiB(64), MiB(1), MiB(64)}) {
    auto cohort = Cohort::of({{{300000}}});
    for (std::uint64_t c = 0; c < 10; ++c) cohort.add_random(c, c);
    const CountingUpdates counted(cohort.groups[0]);
    Krum rule({2, 3, bound}, host);
    rule.begin({});
    rule.survey(counted);
    FakeResults results(&counted);
    rule.reduce(counted, results);
    const auto stated = rule.workspace(layout, layout.groups[0], 10);
    CHECK(stated <= bound.value + 8 * (45 + 40));
    CHECK(counted.most_bytes() <= stated);
    CHECK(counted.most_bytes() > stated / 2);
    CHECK(counted.bytes_read() == (10 + 3) * 300000 * sizeof(float));
  }
}

TEST_CASE("clients of other shapes are refused, a cancelled run ends, and one chosen client is released as it is") {
  auto cohort = Cohort::of({{{4}}});
  for (std::uint64_t c = 0; c < 5; ++c) cohort.add_random(c, c);
  cohort.groups[0].add_view("wide", {{"t0", DType::f32, {5}}});
  cohort.groups[0].add({.node = 9, .view = "wide"}, {random_tensor({5}, 1)});
  CHECK_THROWS_WITH(run({1, 1}, cohort), Catch::Contains("'t0' differs"));
  testing::QuietHost host;
  host.cancel = true;
  auto fine = Cohort::of({{{4}}});
  for (std::uint64_t c = 0; c < 5; ++c) fine.add_random(c, c);
  Krum rule({1, 1}, host);
  CHECK_THROWS_WITH(rule.survey(fine.groups[0]), Catch::Contains("cancelled"));
  CHECK((krum::traits({1, 1}) & HANSA_TRAIT_RELEASES_INDIVIDUALS) != 0);
  CHECK((krum::traits({1, 2}) & HANSA_TRAIT_RELEASES_INDIVIDUALS) == 0);
}
