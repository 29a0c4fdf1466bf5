// Cross-entropy without logits against the formula in fp64 and its gradients by LibTorch, beside the form with chunks of logits.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include "nn/cross_entropy.hpp"
#include "nn/fast/head_kernel.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::nn;

namespace {

struct HeadCase {
  std::int64_t rows, vocabulary, dim;
  double scale = 1;  // of the hidden rows: how far apart logits are
  double rise = 0;   // added to the logits from the first word to the last: maxima that keep growing
};

struct HeadLoss {
  double nats = 0;
  at::Tensor d_hidden;
};

HeadLoss loss_by_formula(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels) {
  const auto h = hidden.to(at::kDouble).requires_grad_(true);
  const auto loss = -at::log_softmax(at::mm(h, weight.to(at::kDouble).t()), 1).gather(1, labels.unsqueeze(1)).sum();
  loss.backward();
  return {loss.item<double>(), h.grad()};
}

HeadLoss loss_by(Kernels kernels, const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels) {
  const auto h = hidden.clone().requires_grad_(true);
  const auto loss = chunked_cross_entropy(h, weight, labels, 37, 0, kernels);
  loss.backward();
  return {loss.item<double>(), h.grad().to(at::kDouble)};
}

}  // namespace

TEST_CASE("cross-entropy without logits is the formula, and its gradient LibTorch's") {
  const auto threads = static_cast<std::int64_t>(at::get_num_threads());
  std::uint64_t seed = 1;
  for (const auto& c : std::initializer_list<HeadCase>{{64, 1, 16},
                                                       {64, 2, 16},
                                                       {65, 95, 16},
                                                       {127, 96, 48},
                                                       {128, 97, 64},
                                                       {70, 193, 576, 0.3},
                                                       {200, 1000, 80, 4},
                                                       {96, 700, 64, 0.1, 60},
                                                       {96, 700, 64, 0.1, -60},
                                                       {66, 3000, 144, 30}}) {
    const auto rows = std::max(c.rows, 32 * threads);
    INFO(rows << " rows, " << c.vocabulary << " words, " << c.dim << " wide, scale " << c.scale << ", rise " << c.rise);
    auto hidden = at::randn({rows, c.dim}, make_generator(++seed), at::kFloat) * c.scale;
    auto weight = at::randn({c.vocabulary, c.dim}, make_generator(++seed), at::kFloat);
    hidden.select(1, 0).fill_(1);
    weight.select(1, 0).copy_(at::arange(c.vocabulary, at::kFloat) * (c.rise / static_cast<double>(c.vocabulary)));
    hidden = hidden.to(at::kBFloat16);
    weight = weight.to(at::kBFloat16);
    const auto labels = at::randint(0, c.vocabulary, {rows}, make_generator(++seed), at::kLong);
    const auto want = loss_by_formula(hidden, weight, labels);
    // Chunks hold their logits in bf16; without logits all is fp32 but the probabilities.
    const bool own = fast::head_kernel() != nullptr;
    float fast = 0;
    for (const auto kernels : {Kernels::Fast, Kernels::Plain}) {
      INFO((kernels == Kernels::Fast ? "fast" : "plain"));
      const auto found = loss_by(kernels, hidden, weight, labels);
      const bool without = own && kernels == Kernels::Fast;
      const double near = without ? 1e-5 : 3e-3;
      CHECK(std::abs(found.nats - want.nats) <= near * (want.nats + 0.1 * static_cast<double>(rows)));
      // The floor is for gradients that are 0 but for rounding.
      const auto off = (found.d_hidden - want.d_hidden).norm().item<double>();
      CHECK(off <= (without ? 1e-2 : 0.1) * want.d_hidden.norm().item<double>() + 1e-5);
      if (kernels == Kernels::Fast) fast = static_cast<float>(found.nats);
    }
    const at::NoGradGuard none;  // nothing is done for a gradient that nobody asks for, and the loss is the same
    CHECK(chunked_cross_entropy(hidden, weight, labels, 37).item<float>() == fast);
  }
}

TEST_CASE("an undefined row is seen in its loss, and in no other row's gradient") {
  const auto rows = 32 * static_cast<std::int64_t>(at::get_num_threads());
  auto hidden = at::randn({rows, 32}, make_generator(3), at::kFloat).to(at::kBFloat16);
  const auto weight = at::randn({300, 32}, make_generator(4), at::kFloat).to(at::kBFloat16);
  const auto labels = at::randint(0, 300, {rows}, make_generator(5), at::kLong);
  const auto clean = loss_by(Kernels::Fast, hidden, weight, labels);
  hidden[1].fill_(std::numeric_limits<float>::quiet_NaN());
  const auto found = loss_by(Kernels::Fast, hidden, weight, labels);
  CHECK(std::isnan(found.nats));
  CHECK(found.d_hidden[0].equal(clean.d_hidden[0]));
  CHECK(found.d_hidden.slice(0, 2).equal(clean.d_hidden.slice(0, 2)));
  CHECK(std::isnan(found.d_hidden[1][0].item<double>()));
}
