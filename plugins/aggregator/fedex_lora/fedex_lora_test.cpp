#include "fedex_lora.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <hansa/testing/counting_updates.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;
using fedex_lora::FedExLora;
using testing::FakeResults;
using testing::FakeUpdates;

namespace {

constexpr std::int64_t kOut = 24, kIn = 20, kRank = 3;
constexpr double kScale = 1.5;

Layout layout_of(std::int64_t out, std::int64_t in, std::int64_t rank) {
  return {{{"q.lora_A", DType::f32, {rank, in}}, {"q.lora_B", DType::f32, {out, rank}}}, {{"lora", {0, 1}, kScale}}};
}
at::Tensor normal(at::IntArrayRef shape, double deviation, std::uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, deviation, at::detail::createCPUGenerator(seed));
}
at::Tensor wide(const at::Tensor& tensor) { return tensor.to(at::kDouble); }
at::Tensor product(const at::Tensor& B, const at::Tensor& A) { return at::mm(wide(B), wide(A)); }
double largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

// Clients of unlike weights whose changes are a function of the seed.
FakeUpdates cohort(std::size_t clients, const Layout& layout, std::uint64_t seed) {
  FakeUpdates updates(layout.groups[0], layout.tensors);
  for (std::size_t i = 0; i < clients; ++i)
    updates.add(
        {.node = i, .weight = 1 + static_cast<double>(i)},
        {normal(layout.tensors[0].shape, 0.1, seed + 2 * i), normal(layout.tensors[1].shape, 0.1, seed + 2 * i + 1)});
  return updates;
}
// What should be, dense and in double: p, the means of the values, Σ p B A.
struct Dense {
  explicit Dense(const Updates& updates) {
    double total = 0;
    for (std::size_t i = 0; i < updates.clients(); ++i) total += updates.who(i).weight;
    for (std::size_t i = 0; i < updates.clients(); ++i) {
      const double p = updates.who(i).weight / total;
      const auto A = wide(updates.value(i, 0)), B = wide(updates.value(i, 1));
      mean_A = i == 0 ? A * p : mean_A + A * p;
      mean_B = i == 0 ? B * p : mean_B + B * p;
      products = i == 0 ? at::mm(B, A) * p : products + at::mm(B, A) * p;
    }
  }
  at::Tensor residual() const { return kScale * (products - at::mm(mean_B, mean_A)); }
  at::Tensor mean_A, mean_B, products;
};

Download entry_of(const FakeResults& results, Epoch epoch) {
  return {.channel = "residual",
          .epoch = epoch,
          .tensors = {{"q.residual_A", results.appended("residual", "q.residual_A")},
                      {"q.residual_B", results.appended("residual", "q.residual_B")}}};
}
// What a node makes of its log: all factors side by side, multiplied in fp32.
at::Tensor side(const std::vector<Download>& log) {
  std::vector<at::Tensor> A, B;
  for (const auto& entry : log) {
    A.push_back(entry.tensors[0].second);
    B.push_back(entry.tensors[1].second);
  }
  return at::mm(at::cat(B, 1), at::cat(A, 0));
}

}  // namespace

TEST_CASE("one round: the means of both factors, and the residual in (clients - 1) r columns") {
  const auto layout = layout_of(kOut, kIn, kRank);
  auto updates = cohort(5, layout, 1);
  updates.stand({normal({kRank, kIn}, 0.3, 90), normal({kOut, kRank}, 0.3, 91)});
  FakeResults results;
  FedExLora().reduce(updates, results);
  const Dense want(updates);
  CHECK(largest(wide(updates.value(0, 0) - updates.delta(0, 0) + results.put_at(0)) - want.mean_A) < 1e-6);
  CHECK(largest(wide(updates.value(0, 1) - updates.delta(0, 1) + results.put_at(1)) - want.mean_B) < 1e-6);
  const auto A = results.appended("residual", "q.residual_A"), B = results.appended("residual", "q.residual_B");
  CHECK(A.sizes() == at::IntArrayRef({4 * kRank, kIn}));
  CHECK(B.sizes() == at::IntArrayRef({kOut, 4 * kRank}));
  CHECK(largest(want.residual()) > 0.01);
  CHECK(largest(product(B, A) - want.residual()) < 1e-6);
}

TEST_CASE("more columns than the weight has become as many as it has") {
  const auto layout = layout_of(10, 8, 3);
  const auto updates = cohort(6, layout, 5);
  FakeResults results;
  FedExLora().reduce(updates, results);
  const auto A = results.appended("residual", "q.residual_A"), B = results.appended("residual", "q.residual_B");
  CHECK(B.sizes() == at::IntArrayRef({10, 8}));
  CHECK(largest(product(B, A) - Dense(updates).residual()) < 1e-6);
}

TEST_CASE("over 50 rounds on a bf16 base every node computes with base + earlier residuals + s mean(B A)") {
  const auto layout = layout_of(kOut, kIn, kRank);
  const auto base = normal({kOut, kIn}, 0.5, 7).to(at::kBFloat16);
  auto A = normal({kRank, kIn}, 0.3, 8), B = at::zeros({kOut, kRank}, at::kFloat);
  auto frozen = wide(base);  // the reference: base + all earlier residuals, dense
  std::vector<Download> log;
  const FedExLora rule;
  for (Epoch round = 1; round <= 50; ++round) {
    auto updates = cohort(4, layout, 1000 * round);
    updates.stand({A, B});
    const Dense want(updates);
    FakeResults results;
    FedExLora().reduce(updates, results);
    A = A + results.put_at(0);
    B = B + results.put_at(1);
    log.push_back(entry_of(results, round));
    if (round == 25 || round == 50) {
      auto all = rule.compact("residual", log);
      REQUIRE(all.has_value());
      CHECK(all->at(0).first == "q.residual_A");
      CHECK(all->at(1).second.size(1) == kIn);  // 225 columns before
      log = {{.channel = "residual", .epoch = round, .anew = true, .tensors = *all}};
    }
    const auto node = base.to(at::kFloat) + side(log) + at::mm(B, A) * kScale;
    CHECK(largest(wide(node) - (frozen + kScale * want.products)) < 1e-5);
    frozen = frozen + want.residual();
  }
  CHECK(largest(frozen - wide(base)) > 0.1);
  // Why the factors stay beside the base: folded into bf16 they are lost in its rounding.
  CHECK(largest(wide((base.to(at::kFloat) + side(log)).to(at::kBFloat16)) - frozen) > 1e-3);
}

TEST_CASE("one client leaves no residual, and nobody changes nothing") {
  const auto layout = layout_of(kOut, kIn, kRank);
  for (std::size_t clients : {0, 1}) {
    const auto updates = cohort(clients, layout, 3);
    FakeResults results;
    FedExLora().reduce(updates, results);
    CHECK_THROWS(results.appended("residual", "q.residual_A"));
    for (std::size_t member : {0, 1}) {
      const auto& put = results.put_at(member);
      CHECK(put.equal(clients == 1 ? updates.delta(0, member) : at::zeros(put.sizes(), at::kFloat)));
    }
  }
}

TEST_CASE("a compacted log begins anew where an entry says so, and another channel is left alone") {
  FakeResults first, second;
  const auto layout = layout_of(kOut, kIn, kRank);
  FedExLora().reduce(cohort(3, layout, 1), first);
  FedExLora().reduce(cohort(3, layout, 50), second);
  std::vector<Download> log{entry_of(first, 1), entry_of(second, 2)};
  log[1].anew = true;
  const auto compacted = FedExLora().compact("residual", log);
  CHECK(largest(product(compacted->at(1).second, compacted->at(0).second) - wide(side({log[1]}))) < 1e-6);
  CHECK_FALSE(FedExLora().compact("adapter", log).has_value());
  log[1].tensors.pop_back();
  CHECK_THROWS_WITH(FedExLora().compact("residual", log), Contains("a factor of 'q' is missing"));
  log[1].tensors.back().first = "q.lora_A";
  CHECK_THROWS_WITH(FedExLora().compact("residual", log), Contains("'q.lora_A' is no tensor of channel 'residual'"));
}

TEST_CASE("everything is shared, and the log's layout follows from the trainable one") {
  const auto exchange = FedExLora().exchange(layout_of(kOut, kIn, kRank), {.round = 1}, {});
  CHECK((exchange.roles == std::vector<Role>(2, Role::Shared)));
  REQUIRE(exchange.down.size() == 1);
  const auto& log = exchange.down[0];
  CHECK((log.name == "residual" && log.keep == Keep::Log && !log.for_trainer));
  const std::vector<TensorSpec> want{{"q.residual_A", DType::f32, {-1, kIn}}, {"q.residual_B", DType::f32, {kOut, -1}}};
  CHECK((log.layout.tensors == want));
}

TEST_CASE("the stated workspace holds the changes, and each is decoded once") {
  for (std::size_t clients : {2, 5, 30}) {  // 30: more columns than the weight has
    const auto layout = layout_of(kOut, kIn, kRank);
    const auto updates = cohort(clients, layout, 1);
    const testing::CountingUpdates counting(updates);
    FakeResults results;
    FedExLora().reduce(counting, results);
    const auto pair = static_cast<std::uint64_t>(kRank * (kIn + kOut)) * sizeof(float);
    CHECK(counting.bytes_read() == clients * pair);
    const auto result = static_cast<std::uint64_t>(results.appended("residual", "q.residual_A").nbytes() +
                                                   results.appended("residual", "q.residual_B").nbytes());
    CHECK(counting.most_bytes() + result <= FedExLora().workspace(layout, layout.groups[0], clients));
  }
}

TEST_CASE("what is no low-rank pair, and clients of another rank, are refused") {
  const Layout lone{{{"norm.weight", DType::f32, {4}}}, {{"", {0}}}};
  CHECK_THROWS_WITH(FedExLora().exchange(lone, {.round = 1}, {}), Contains("'norm.weight' is no part of one"));
  const auto layout = layout_of(kOut, kIn, kRank);
  FakeResults results;
  CHECK_THROWS_WITH(FedExLora().reduce(FakeUpdates({"lora", {0}}, {layout.tensors[0]}), results),
                    Contains("got 'q.lora_A' alone"));
  auto updates = cohort(2, layout, 1);
  updates.add({.node = 9}, {at::zeros({5, kIn}), at::zeros({kOut, 5})});
  CHECK_THROWS_WITH(FedExLora().reduce(updates, results), Contains("'q.lora_A' differs in shape"));
}
