#include "flexlora.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/counting_updates.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using flexlora::FlexLora;
using testing::FakeResults;
using testing::FakeUpdates;

namespace {

constexpr std::int64_t kOut = 40, kIn = 36;
constexpr double kAlpha = 16;

at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, 0.3, at::detail::createCPUGenerator(seed));
}
std::vector<TensorSpec> specs(std::int64_t rank) {
  return {{"q.lora_A", DType::f32, {rank, kIn}}, {"q.lora_B", DType::f32, {kOut, rank}}};
}
std::vector<at::Tensor> some_pair(std::int64_t rank, std::uint64_t seed) {
  return {normal({rank, kIn}, 2 * seed), normal({kOut, rank}, 2 * seed + 1)};
}
std::string name_of(std::int64_t rank) { return rank == 8 ? "" : "rank" + std::to_string(rank); }

// Views of ranks 8 (the pipeline's), 4 and 16, each with what its nodes were sent.
FakeUpdates three_ranks() {
  FakeUpdates updates({"lora", {0, 1}, kAlpha / 8}, specs(8));
  updates.stand(some_pair(8, 500));
  for (std::int64_t rank : {4, 16}) {
    updates.add_view(name_of(rank), specs(rank), some_pair(rank, 600 + static_cast<std::uint64_t>(rank)));
    updates.rescale(name_of(rank), kAlpha / static_cast<double>(rank));
  }
  return updates;
}
void add(FakeUpdates& updates, NodeId node, std::int64_t rank) {
  updates.add({.node = node, .view = name_of(rank), .weight = 1 + static_cast<double>(node % 3)},
              some_pair(rank, node));
}

// Σ p s B A, dense, in double; the scale from the rank, not from the updates.
at::Tensor mean_product(const Updates& updates) {
  double total = 0;
  for (std::size_t i = 0; i < updates.clients(); ++i) total += updates.who(i).weight;
  auto sum = at::zeros({kOut, kIn}, at::kDouble);
  for (std::size_t i = 0; i < updates.clients(); ++i) {
    const auto A = updates.value(i, 0).to(at::kDouble), B = updates.value(i, 1).to(at::kDouble);
    sum += at::mm(B, A) * (updates.who(i).weight / total * kAlpha / static_cast<double>(A.size(0)));
  }
  return sum;
}
at::Tensor best_of_rank(const at::Tensor& matrix, std::int64_t rank) {
  const auto [u, s, v] = at::linalg_svd(matrix, false);
  return at::mm(u.narrow(1, 0, rank) * s.narrow(0, 0, rank), v.narrow(0, 0, rank));
}
at::Tensor put_product(const FakeResults& results, std::int64_t rank) {
  const auto &A = results.view_at(name_of(rank), 0), &B = results.view_at(name_of(rank), 1);
  REQUIRE(A.sizes() == at::IntArrayRef({rank, kIn}));
  REQUIRE(B.sizes() == at::IntArrayRef({kOut, rank}));
  REQUIRE((A.scalar_type() == at::kFloat && B.is_contiguous() && A.is_contiguous()));
  return at::mm(B.to(at::kDouble), A.to(at::kDouble)) * (kAlpha / static_cast<double>(rank));
}
double relative(const at::Tensor& got, const at::Tensor& want) {
  return (got - want).norm().item<double>() / want.norm().item<double>();
}
double from_orthonormal(const at::Tensor& rows) {
  return (at::mm(rows, rows.t()) - at::eye(rows.size(0))).abs().max().item<double>();
}

testing::QuietHost host;

}  // namespace

TEST_CASE("nodes of ranks 4, 8 and 16 each get the best factors of their rank, as a dense SVD finds them") {
  auto updates = three_ranks();
  for (NodeId node = 1; node <= 7; ++node) add(updates, node, node % 3 == 0 ? 4 : node % 3 == 1 ? 8 : 16);
  FakeResults results;
  FlexLora(host).reduce(updates, results);
  CHECK(results.puts() == 0);
  const auto want = mean_product(updates);
  for (std::int64_t rank : {4, 8, 16}) {
    CHECK(relative(put_product(results, rank), best_of_rank(want, rank)) < 1e-6);
    CHECK(from_orthonormal(results.view_at(name_of(rank), 0)) < 1e-5);
  }
  CHECK(relative(put_product(results, 16), want) > 0.1);  // the ranks do cut something off
}

TEST_CASE("a mean of lower rank than a view is kept whole, and its free directions start as a pair starts") {
  auto updates = three_ranks();
  add(updates, 1, 4);
  FakeResults results;
  FlexLora(host).reduce(updates, results);
  const auto want = mean_product(updates);
  for (std::int64_t rank : {4, 8, 16}) CHECK(relative(put_product(results, rank), want) < 1e-6);
  const auto &A = results.view_at("rank16", 0), &B = results.view_at("rank16", 1);
  CHECK(from_orthonormal(A) < 1e-5);
  CHECK(B.narrow(1, 4, 12).abs().max().item<double>() == 0);
}

TEST_CASE("the same updates give the same bits") {
  FakeResults first, second;
  for (auto* results : {&first, &second}) {
    auto updates = three_ranks();
    for (NodeId node = 1; node <= 2; ++node) add(updates, node, 4);
    FlexLora(host).reduce(updates, *results);
  }
  for (std::int64_t rank : {4, 8, 16})
    for (std::size_t member : {0, 1})
      CHECK(first.view_at(name_of(rank), member).equal(second.view_at(name_of(rank), member)));
}

TEST_CASE("each client is decoded once, and the workspace stated for the largest rank bounds what is held") {
  auto updates = three_ranks();
  for (NodeId node = 1; node <= 9; ++node) add(updates, node, node % 2 == 0 ? 16 : 4);
  const testing::CountingUpdates counting(updates);
  FakeResults results;
  FlexLora(host).reduce(counting, results);
  const Layout largest{specs(16), {{"lora", {0, 1}, 1}}};
  CHECK(counting.bytes_read() == (4 * 16 + 5 * 4) * (kIn + kOut) * sizeof(float));
  CHECK(counting.most_bytes() <= FlexLora(host).workspace(largest, largest.groups[0], 9));
}

TEST_CASE("a node's view is named by its rank, and everything is shared") {
  const Layout layout{specs(4), {{"lora", {0, 1}, 4}}};
  const FlexLora rule(host);
  CHECK(rule.exchange(layout, {.round = 1}, {}).view.empty());
  CHECK(rule.exchange(layout, {.round = 1}, {.rank = 4}).view == "rank4");
  CHECK(rule.exchange(layout, {.round = 9}, {.rank = 16}).view == "rank16");
  CHECK((rule.exchange(layout, {.round = 1}, {.rank = 4}).roles == std::vector<Role>(2, Role::Shared)));
}

TEST_CASE("what is no low-rank pair, and a round without updates, are refused") {
  const Layout lone{{{"norm.weight", DType::f32, {4}}}, {{"", {0}}}};
  CHECK_THROWS_WITH(FlexLora(host).exchange(lone, {.round = 1}, {}), Contains("'norm.weight' is no part of one"));
  FakeResults results;
  CHECK_THROWS_WITH(FlexLora(host).reduce(three_ranks(), results), Contains("no update was accepted"));
}
