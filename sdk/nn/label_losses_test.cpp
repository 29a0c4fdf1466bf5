#include "nn/label_losses.hpp"

#include <ATen/core/Reduction.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tanh.h>
#include <ATen/TensorOperators.h>

#include "nn/dropout.hpp"
#include "nn/layers.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::nn;

namespace {

at::Tensor normal_logits(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, make_generator(seed), at::kFloat);
}
at::Tensor plain(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, double cap) {
  auto logits = at::mm(hidden, weight.t());
  if (cap != 0) logits = at::tanh(logits / cap) * cap;
  return at::nll_loss(at::log_softmax(logits, 1), labels, {}, at::Reduction::None);
}

}  // namespace

TEST_CASE("losses by label and their gradients equal the plain form, each row weighed by itself") {
  const auto hidden = normal_logits({23, 7}, 1), weight = normal_logits({41, 7}, 2), weights = normal_logits({23}, 3);
  const auto labels = at::randint(41, {23}, make_generator(4), at::kLong);
  for (double cap : {0.0, 3.0}) {
    auto h0 = hidden.clone().requires_grad_(true), w0 = weight.clone().requires_grad_(true);
    const auto want = plain(h0, w0, labels, cap);
    (want * weights).sum().backward();
    for (std::int64_t chunk : {1, 7, 23, 64}) {
      auto h = hidden.clone().requires_grad_(true), w = weight.clone().requires_grad_(true);
      const auto found = chunked_label_losses(h, w, labels, chunk, cap);
      CHECK(at::allclose(found, want, 1e-5, 1e-5));
      (found * weights).sum().backward();
      CHECK(at::allclose(h.grad(), h0.grad(), 1e-4, 1e-5));
      CHECK(at::allclose(w.grad(), w0.grad(), 1e-4, 1e-5));
    }
  }
}

TEST_CASE("in bf16 losses by label and gradients are those of fp32 but for rounding, and a frozen weight gets none") {
  const auto hidden = normal_logits({9, 16}, 1).to(at::kBFloat16),
             weight = normal_logits({41, 16}, 2).to(at::kBFloat16);
  const auto labels = at::randint(41, {9}, make_generator(4), at::kLong);
  auto h0 = hidden.to(at::kFloat).requires_grad_(true), h = hidden.clone().requires_grad_(true);
  const auto want = plain(h0, weight.to(at::kFloat), labels, 0), found = chunked_label_losses(h, weight, labels, 4);
  CHECK(found.scalar_type() == at::kFloat);
  CHECK(at::allclose(found, want, 0.03, 0.03));
  want.sum().backward();
  found.sum().backward();
  CHECK((h.grad().to(at::kFloat) - h0.grad()).norm().item<double>() < 0.02 * h0.grad().norm().item<double>());
}

TEST_CASE("the head's losses stand where their labels do, and add up to its loss, with a pair in it or not") {
  Places places({Module{.name = "head", .kind = Module::Kind::Head, .in = 6, .out = 11}});
  places.at("head").weight = normal_logits({11, 6}, 2);
  auto labels = at::randint(11, {3, 4}, make_generator(4), at::kLong);
  labels[1].narrow(0, 1, 2).fill_(-100);
  labels[2].fill_(-100);
  Dropout off;
  for (bool pair : {false, true}) {
    if (pair) {
      const std::vector<Injection> all{{"head", LowRank{normal_logits({2, 6}, 5), normal_logits({11, 2}, 6), 0.7, 0}}};
      places.inject(all);
    }
    auto one = normal_logits({3, 4, 6}, 1).requires_grad_(true), other = one.detach().clone().requires_grad_(true);
    const auto each = head_label_losses(places.at("head"), one, labels, off);
    const auto sum = head_loss(places.at("head"), other, labels, off);
    CHECK(each.sizes() == labels.sizes());
    CHECK(each.eq(0).equal(labels.lt(0)));
    CHECK(each.sum().item<double>() == Approx(sum.item<double>()).epsilon(1e-5));
    each.sum().backward();
    sum.backward();
    CHECK(at::allclose(one.grad(), other.grad(), 1e-4, 1e-6));
  }
  CHECK(head_label_losses(places.at("head"), normal_logits({1, 2, 6}, 1), at::full({1, 2}, -100, at::kLong), off)
            .abs()
            .sum()
            .item<double>() == 0);
}
