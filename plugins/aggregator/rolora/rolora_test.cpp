#include "rolora.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <hansa/layouts.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "test.hpp"

using namespace hansa;
using rolora::RoLora;

namespace {

const Layout kLayout{{{"q.lora_A", DType::f32, {2, 5}},
                      {"q.lora_B", DType::f32, {4, 2}},
                      {"v.lora_A", DType::f32, {2, 5}},
                      {"v.lora_B", DType::f32, {3, 2}}},
                     {{"lora", {0, 1}, 2}, {"lora", {2, 3}, 2}}};

Exchange exchange_of(Round round) { return RoLora().exchange(kLayout, {.round = round}, {}); }
at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, 1, at::detail::createCPUGenerator(seed));
}

}  // namespace

TEST_CASE("odd rounds ship every B and no A, even rounds every A and no B") {
  for (Round round : {1, 2, 3, 4, 101, 102}) {
    const auto exchange = exchange_of(round);
    const auto turn = round % 2 == 1 ? Role::Shared : Role::Frozen, rest = round % 2 == 1 ? Role::Frozen : Role::Shared;
    CHECK((exchange.roles == std::vector<Role>{rest, turn, rest, turn}));
    CHECK(exchange.view.empty());
    CHECK((exchange.up.empty() && exchange.down.empty()));
  }
}

TEST_CASE("over two rounds each tensor travels once: half the bytes of all in both") {
  std::int64_t shipped = 0, all = 0;
  for (Round round : {1, 2})
    for (const auto& tensor : part_of(kLayout, exchange_of(round).roles, {Role::Shared}).tensors)
      shipped += tensor.elements();
  for (const auto& tensor : kLayout.tensors) all += tensor.elements();
  CHECK(shipped == all);
}

TEST_CASE("what is no low-rank pair is refused by name") {
  auto layout = kLayout;
  layout.tensors.push_back({"norm.bias", DType::f32, {4}});
  layout.groups.push_back({"", {4}});
  CHECK_THROWS_WITH(RoLora().exchange(layout, {.round = 1}, {}), Catch::Contains("'norm.bias' is no part of one"));
}

TEST_CASE("rounds in turn give the mean of the products, round after round") {
  // Three nodes whose turn moves the factor that it trains; the host divides the sum by the weights and adds it.
  auto A = normal({2, 5}, 1), B = at::zeros({4, 2}, at::kFloat);
  const std::vector<double> weights{1, 2, 5};
  for (Round round = 1; round <= 6; ++round) {
    const bool moves_B = exchange_of(round).roles[1] == Role::Shared;
    auto& standing = moves_B ? B : A;
    const auto shape = standing.sizes().vec();
    testing::FakeUpdates updates({"lora", {0}, 2}, {{moves_B ? "q.lora_B" : "q.lora_A", DType::f32, shape}});
    auto want = at::zeros({4, 5}, at::kDouble);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const auto delta = normal(shape, 10 * round + i);
      updates.add({.node = i, .weight = weights[i]}, {delta});
      const auto own_A = (moves_B ? A : A + delta).to(at::kDouble), own_B = (moves_B ? B + delta : B).to(at::kDouble);
      want += at::mm(own_B, own_A) * (weights[i] / 8);
    }
    testing::FakeResults results;
    RoLora().reduce(updates, results);
    standing = standing + results.put_at(0) / 8;
    CHECK((at::mm(B.to(at::kDouble), A.to(at::kDouble)) - want).abs().max().item<double>() < 1e-5);
  }
}
