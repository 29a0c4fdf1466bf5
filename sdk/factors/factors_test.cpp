// Against the dense matrices that factors.hpp never makes: products, and their SVD in double.
#include "factors/factors.hpp"

#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <hansa/testing/fake_updates.hpp>

#include "factors/pairs.hpp"
#include "factors/weighted_sum.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::factors;
using Catch::Matchers::Contains;

namespace {

at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed, at::ScalarType type = at::kFloat) {
  return at::empty(shape, at::kDouble).normal_(0, 1, at::detail::createCPUGenerator(seed)).to(type);
}
Factors random_factors(std::int64_t d, std::int64_t m, std::int64_t k, std::uint64_t seed) {
  return {normal({d, m}, 2 * seed), normal({m, k}, 2 * seed + 1)};
}
at::Tensor dense(const Factors& factors) { return at::mm(factors.left.to(at::kDouble), factors.right.to(at::kDouble)); }
double largest(const at::Tensor& tensor) { return tensor.numel() == 0 ? 0 : tensor.abs().max().item<double>(); }
double frobenius(const at::Tensor& tensor) { return tensor.norm().item<double>(); }
// The best approximation of a rank that there is.
at::Tensor truncated(const at::Tensor& matrix, std::int64_t rank) {
  const auto [u, s, v] = at::linalg_svd(matrix, false);
  return at::mm(u.narrow(1, 0, rank) * s.narrow(0, 0, rank), v.narrow(0, 0, rank));
}
void check_orthonormal_rows(const at::Tensor& rows) {
  CHECK(largest(at::mm(rows, rows.t()) - at::eye(rows.size(0), at::kDouble)) < 1e-12);
}

}  // namespace

TEST_CASE("stacked factors are the weighted sum of the products, weights entering one side once") {
  const std::vector<Weighted> parts{{random_factors(7, 2, 9, 1), 0.25}, {random_factors(7, 3, 9, 2), -2}};
  const auto all = stack(parts);
  CHECK(all.left.sizes() == at::IntArrayRef({7, 5}));
  CHECK(all.right.sizes() == at::IntArrayRef({5, 9}));
  CHECK(largest(dense(all) - (0.25 * dense(parts[0].factors) - 2 * dense(parts[1].factors))) < 1e-12);
}

TEST_CASE("the decomposition of a product of factors is that of the dense matrix") {
  // Thin, one side shorter than the columns, both sides shorter, a single column.
  for (auto [d, m, k] : {std::array<std::int64_t, 3>{40, 6, 30}, {5, 12, 30}, {8, 50, 6}, {20, 1, 3}}) {
    const auto factors = random_factors(d, m, k, 7);
    const auto spectrum = decompose(factors, 1e-10);
    const auto n = std::min({d, m, k});
    REQUIRE(spectrum.values.size(0) == n);
    CHECK(spectrum.rank == n);
    const auto reference = std::get<1>(at::linalg_svd(dense(factors), false)).narrow(0, 0, n);
    CHECK(largest(spectrum.values - reference) < 1e-11 * reference[0].item<double>());
    CHECK(largest(at::mm(spectrum.left * spectrum.values, spectrum.right) - dense(factors)) < 1e-11);
    check_orthonormal_rows(spectrum.right);
    check_orthonormal_rows(spectrum.left.t());
    const auto peaks = spectrum.left.gather(0, spectrum.left.abs().argmax(0, true));
    CHECK(peaks.gt(0).all().item<bool>());
  }
}

TEST_CASE("the best factors of a rank are as near as a dense SVD comes, in fp32") {
  const auto factors = random_factors(60, 28, 44, 3);
  const auto matrix = dense(factors);
  const auto spectrum = decompose(factors, 1e-10);
  for (std::int64_t rank : {1, 4, 8, 16, 28}) {
    const auto best = balanced(spectrum, rank);
    CHECK(best.left.sizes() == at::IntArrayRef({60, rank}));
    CHECK(best.left.scalar_type() == at::kFloat);
    CHECK(frobenius(dense(best) - truncated(matrix, rank)) < 1e-6 * frobenius(matrix));
  }
  CHECK(balanced(spectrum, 100).left.size(1) == 28);  // there are no more
}

TEST_CASE("directions that are numerically zero go, and a zero matrix keeps none") {
  auto factors = random_factors(30, 4, 20, 5);
  const Factors twice{stack(std::vector<Weighted>{{factors, 1}, {factors, 1e-3}})};  // 8 columns of rank 4
  CHECK(decompose(twice, 1e-8).rank == 4);
  CHECK(decompose(twice, 1e-8).values.size(0) == 8);
  const std::vector<Factors> parts{factors, {-factors.left, factors.right}};
  const auto nothing = merge(parts, 1e-8);
  CHECK(largest(dense(nothing)) < 1e-6);
  CHECK(decompose({at::zeros({5, 2}), normal({2, 6}, 1)}, 1e-8).rank == 0);
  CHECK(decompose({at::zeros({5, 0}), at::zeros({0, 6})}, 1e-8).right.sizes() == at::IntArrayRef({0, 6}));
}

TEST_CASE("many parts merge into the fewest columns that say the same") {
  const std::int64_t d = 24, k = 18;
  std::vector<Factors> parts;
  auto sum = at::zeros({d, k}, at::kDouble);
  for (std::uint64_t i = 0; i < 20; ++i) {
    parts.push_back(random_factors(d, static_cast<std::int64_t>(i % 4), k, 100 + i));
    sum += dense(parts.back());
  }
  const auto merged = merge(parts, 1e-9);  // 30 columns in all, and then 36 at most
  CHECK(merged.left.size(1) == k);
  CHECK(frobenius(dense(merged) - sum) < 5e-7 * frobenius(sum));
  const std::vector<Factors> few(parts.begin(), parts.begin() + 4);
  CHECK(merge(few, 1e-9).left.size(1) == 6);
  CHECK(largest(dense(merge(few, 1e-9)) - (dense(few[1]) + dense(few[2]) + dense(few[3]))) < 1e-5);
  CHECK(merge(std::vector<Factors>{parts[0]}, 1e-9).left.sizes() == at::IntArrayRef({d, 0}));
}

TEST_CASE("the same factors give the same bits") {
  const auto factors = random_factors(50, 24, 40, 9);
  const auto first = balanced(decompose(factors, 1e-8), 8);
  const auto second = balanced(decompose({factors.left.clone(), factors.right.clone()}, 1e-8), 8);
  CHECK(first.left.equal(second.left));
  CHECK(first.right.equal(second.right));
}

TEST_CASE("rows are completed by orthonormal ones, the same for a seed") {
  const auto rows = decompose(random_factors(20, 3, 12, 4), 1e-8).right;
  const auto full = complete(rows, 8, 5);
  CHECK(full.narrow(0, 0, 3).equal(rows));
  check_orthonormal_rows(full);
  CHECK(complete(rows, 8, 5).equal(full));
  CHECK_FALSE(complete(rows, 8, 6).equal(full));
  check_orthonormal_rows(complete(rows, 12, 5));
  check_orthonormal_rows(complete(at::zeros({0, 12}, at::kDouble), 4, 5));
  CHECK(complete(rows, 3, 5).equal(rows));
}

TEST_CASE("pairs of a layout come with their scale, and what is none is refused by name") {
  Layout layout{{{"q.lora_A", DType::f32, {2, 4}}, {"q.lora_B", DType::f32, {6, 2}}}, {{"lora", {0, 1}, 1.5}}};
  const auto pairs = pairs_of(layout, "some_rule");
  REQUIRE(pairs.size() == 1);
  CHECK(pairs[0].B == 1);
  CHECK(pairs[0].scale == 1.5);
  layout.tensors.push_back({"norm.weight", DType::f32, {4}});
  layout.groups.push_back({"", {2}});
  CHECK_THROWS_WITH(pairs_of(layout, "some_rule"),
                    Contains("some_rule") && Contains("'norm.weight' is no part of one"));
  const testing::FakeUpdates lone({"lora", {0}}, {layout.tensors[0]});
  CHECK_THROWS_WITH(require_pair(lone, "some_rule"), Contains("got 'q.lora_A' alone"));
}

TEST_CASE("shares sum to one; weights that sum to nothing are refused") {
  testing::FakeUpdates updates({"", {0}}, {{"w", DType::f32, {1}}});
  CHECK(shares_of(updates, "some_rule").empty());
  updates.add({.node = 1, .weight = 1}, {at::zeros({1})});
  updates.add({.node = 2, .weight = 3}, {at::zeros({1})});
  CHECK(shares_of(updates, "some_rule") == std::vector<double>{0.25, 0.75});
  testing::FakeUpdates nobody({"", {0}}, {{"w", DType::f32, {1}}});
  nobody.add({.node = 1, .weight = 0}, {at::zeros({1})});
  CHECK_THROWS_WITH(shares_of(nobody, "some_rule"), Contains("sum to 0"));
}

TEST_CASE("the weighted sum is that of a naive loop, and clients of another shape are refused") {
  testing::FakeUpdates updates({"", {0}}, {{"w", DType::f32, {3, 5}}});
  auto want = at::zeros({3, 5}, at::kDouble);
  for (std::uint64_t i = 0; i < 6; ++i) {
    const double weight = 0.5 + static_cast<double>(i);
    updates.add({.node = i, .weight = weight}, {normal({3, 5}, i)});
    want += normal({3, 5}, i).to(at::kDouble) * weight;
  }
  CHECK(largest(weighted_sum(updates, 0) - want) < 1e-5);
  updates.add({.node = 9}, {normal({5, 3}, 1)});
  CHECK_THROWS_WITH(weighted_sum(updates, 0), Contains("'w' differs between clients"));
}
