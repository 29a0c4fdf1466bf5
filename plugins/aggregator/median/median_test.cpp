#include "median.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <hansa/plugin.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/counting_updates.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "test.hpp"

using namespace hansa;
using median::Median, median::Params;
using testing::CountingUpdates, testing::FakeResults, testing::FakeUpdates;

namespace {

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  auto made = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < made.numel(); ++i) made.mutable_data_ptr<float>()[i] = normal(engine);
  return made;
}

FakeUpdates cohort(std::size_t clients, const std::vector<std::vector<std::int64_t>>& shapes) {
  Group group{"", {}};
  std::vector<TensorSpec> specs;
  for (Index m = 0; m < shapes.size(); ++m) {
    group.members.push_back(m);
    specs.push_back({std::string("t").append(std::to_string(m)), DType::f32, shapes[m]});
  }
  FakeUpdates updates(group, specs);
  for (std::size_t c = 0; c < clients; ++c) {
    std::vector<at::Tensor> deltas;
    for (const auto& shape : shapes) deltas.push_back(random_tensor(shape, 100 * c + deltas.size()));
    updates.add({.node = c, .weight = 0.5 + static_cast<double>(c)}, deltas);
  }
  return updates;
}

FakeResults reduce(const Updates& updates, std::uint64_t workspace = MiB(16).value) {
  testing::QuietHost host;
  FakeResults results(&updates);
  Median({ByteSize{workspace}}, host).reduce(updates, results);
  return results;
}

double naive(const Updates& updates, std::size_t member, std::int64_t i) {
  std::vector<double> column;
  for (std::size_t c = 0; c < updates.clients(); ++c)
    column.push_back(updates.delta(c, member).flatten().const_data_ptr<float>()[i]);
  std::sort(column.begin(), column.end());
  const auto half = column.size() / 2;
  return column.size() % 2 ? column[half] : (column[half - 1] + column[half]) / 2;
}

void check_against_naive(const Updates& updates, const FakeResults& results) {
  for (std::size_t m = 0; m < updates.group().members.size(); ++m) {
    const auto& got = results.put_at(m);
    REQUIRE(got.sizes() == at::IntArrayRef(updates.tensor(m).shape));
    bool same = true;
    for (std::int64_t i = 0; i < got.numel(); ++i)
      same = same && got.const_data_ptr<float>()[i] == static_cast<float>(naive(updates, m, i));
    CHECK(same);
  }
}

}  // namespace

TEST_CASE("the median is the sorted column's middle, or the mean of its two middles, for every number of clients") {
  for (std::size_t clients = 1; clients <= 40; ++clients) {
    INFO(clients << " clients");
    const auto updates = cohort(clients, {{7, 9}, {33}, {}, {0}});
    check_against_naive(updates, reduce(updates));
  }
  const auto many = cohort(257, {{50}});
  check_against_naive(many, reduce(many));
}

TEST_CASE("slices that do not divide the tensor, and non-contiguous deltas, give the same medians") {
  auto updates = cohort(6, {{5000}, {90, 70}});
  updates.add({.node = 6}, {random_tensor({5000}, 1), random_tensor({70, 90}, 2).t()});
  const auto small = reduce(updates, 1 << 16), large = reduce(updates);
  check_against_naive(updates, small);
  for (std::size_t m = 0; m < 2; ++m) CHECK(at::equal(small.put_at(m), large.put_at(m)));
}

TEST_CASE("weights and the order of clients do not matter, not even to the sign of a zero") {
  const std::vector<float> values{0.0f, -0.0f, 0.0f, -0.0f, 1.0f, -1.0f};
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    FakeUpdates updates({"", {0}}, {{"t", DType::f32, {1}}});
    for (auto at : order)
      updates.add({.node = at, .weight = static_cast<double>(at)}, {at::empty({1}).fill_(values[at])});
    const float got = reduce(updates).put_at(0).const_data_ptr<float>()[0];
    if (got != 0 || std::signbit(got)) FAIL("not +0");
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("a minority, however extreme, moves the median no further than the honest go") {
  auto updates = cohort(5, {{200}});
  for (std::uint64_t c = 0; c < 4; ++c)
    updates.add({.node = 100 + c}, {at::empty({200}).fill_(c % 2 ? std::numeric_limits<float>::max() : 1e30f)});
  const auto results = reduce(updates);
  for (std::int64_t i = 0; i < 200; ++i) {
    float most = -1e9f;
    for (std::size_t c = 0; c < 5; ++c) most = std::max(most, updates.delta(c, 0).const_data_ptr<float>()[i]);
    CHECK(results.put_at(0).const_data_ptr<float>()[i] <= most);
  }
}

TEST_CASE("the mean of two extreme middles stays finite") {
  FakeUpdates updates({"", {0}}, {{"t", DType::f32, {1}}});
  const float most = std::numeric_limits<float>::max();
  updates.add({.node = 1}, {at::empty({1}).fill_(most)});
  updates.add({.node = 2}, {at::empty({1}).fill_(most)});
  CHECK(reduce(updates).put_at(0).const_data_ptr<float>()[0] == most);
}

TEST_CASE("nobody's median is zero, one client's is its delta, and inputs are untouched") {
  CHECK(at::equal(reduce(cohort(0, {{4, 4}})).put_at(0), at::zeros({4, 4})));
  const auto one = cohort(1, {{64}});
  const auto before = one.delta(0, 0).clone();
  CHECK(at::equal(reduce(one).put_at(0), before));
  const auto three = cohort(3, {{64}});
  std::vector<at::Tensor> copies;
  for (std::size_t c = 0; c < 3; ++c) copies.push_back(three.delta(c, 0).clone());
  reduce(three);
  for (std::size_t c = 0; c < 3; ++c) CHECK(at::equal(three.delta(c, 0), copies[c]));
}

TEST_CASE("the stated workspace bounds what is held, whatever the tensor's size") {
  testing::QuietHost host;
  const Layout layout{{{"t0", DType::f32, {300000}}, {"t1", DType::f32, {10}}}, {{"", {0, 1}}}};
  for (std::uint64_t bound : {std::uint64_t{1} << 16, MiB(1).value, MiB(16).value}) {
    const Median rule({ByteSize{bound}}, host);
    const auto updates = cohort(12, {{300000}, {10}});
    CountingUpdates counted(updates);
    FakeResults results(&updates);
    Median({ByteSize{bound}}, host).reduce(counted, results);
    const auto stated = rule.workspace(layout, layout.groups[0], 12);
    CHECK(stated <= bound);
    CHECK(counted.most_bytes() <= stated);
    CHECK(counted.most_bytes() > stated / 2);  // the statement is no mere upper bound
    CHECK(counted.bytes_read() == 12 * 300010 * sizeof(float));
  }
  CHECK(Median({KiB(64)}, host).workspace(layout, layout.groups[0], 100000) > KiB(64).value);
}

TEST_CASE("clients of other shapes are refused, and a cancelled run ends") {
  auto updates = cohort(2, {{4}});
  updates.add_view("wide", {{"t0", DType::f32, {5}}});
  updates.add({.node = 9, .view = "wide"}, {random_tensor({5}, 1)});
  CHECK_THROWS_WITH(reduce(updates), Catch::Contains("'t0' differs"));
  testing::QuietHost host;
  host.cancel = true;
  const auto fine = cohort(2, {{4}});
  FakeResults results(&fine);
  CHECK_THROWS_WITH(Median({}, host).reduce(fine, results), Catch::Contains("cancelled"));
}
