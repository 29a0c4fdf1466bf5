// The fast form of a block against the plain one, and against finite differences.
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include "nn/causal_model.hpp"
#include "nn/cross_entropy.hpp"
#include "nn/fast/blocks.hpp"
#include "nn/transformer.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::nn;

namespace {

struct Shape {
  std::int64_t width = 30, inner = 34, layers = 2, vocabulary = 41;
  Heads heads{.query = 6, .key_value = 2, .dim = 10};
  std::optional<std::int64_t> window;
  std::int64_t turned = 10;
};

Architecture architecture(const Shape& shape) {
  using Bias = Architecture::Bias;
  Architecture a;
  const auto linear = [&](const std::string& name, std::int64_t in, std::int64_t out) {
    return a.linear(name, in, out, Bias::Without);
  };
  const auto norm = [&](const std::string& name) { return a.norm(NormSpec::Form::Rms, name, shape.width, 1e-5); };
  a.spec.embedding.tokens = a.embedding("embed", shape.vocabulary, shape.width);
  a.spec.ropes = {RopeSettings{shape.turned}};
  for (std::int64_t i = 0; i < shape.layers; ++i) {
    const auto at = "layers." + std::to_string(i) + ".";
    BlockSpec block;
    block.attention_norm = norm(at + "norm");
    block.attention = {.module = {},
                       .query = linear(at + "q", shape.width, shape.heads.query_width()),
                       .key = linear(at + "k", shape.width, shape.heads.key_value_width()),
                       .value = linear(at + "v", shape.width, shape.heads.key_value_width()),
                       .output = linear(at + "o", shape.heads.query_width(), shape.width),
                       .heads = shape.heads,
                       .scale = 1 / std::sqrt(static_cast<double>(shape.heads.dim)),
                       .rope = 0,
                       .window = shape.window};
    block.mlp_norm = norm(at + "norm2");
    block.mlp = {.gate = linear(at + "gate", shape.width, shape.inner),
                 .up = linear(at + "up", shape.width, shape.inner),
                 .down = linear(at + "down", shape.inner, shape.width)};
    a.spec.blocks.push_back(block);
  }
  a.spec.final_norm = norm("norm");
  a.tied_head("head");
  a.plan.vocabulary = shape.vocabulary;
  a.plan.max_length = 1000;
  a.plan.layers = shape.layers;
  a.plan.heads = shape.heads;
  a.plan.initial_deviation = [](const Module& module) { return 1 / std::sqrt(static_cast<double>(module.out)); };
  return a;
}

struct Tried {
  double loss = 0;
  at::Tensor gradient;  // of all pairs, one after another
};

class Trial {
 public:
  Trial(const Shape& shape, const Opening& opening)
      : model_("test", {}, [shape](const auto&) { return std::make_unique<Transformer>(architecture(shape)); }) {
    model_.initialise({}, opening, 1);
    std::uint64_t seed = 10;
    for (const auto& module : model_.modules({})) {
      if (module.kind != Module::Kind::Linear || module.name == "layers.0.k" || module.name == "layers.1.up") continue;
      const auto rank = 2 + static_cast<std::int64_t>(seed % 3);
      LowRank pair{.scale = 0.5};
      pair.A = at::randn({rank, module.in}, make_generator(++seed), at::kFloat).mul_(0.3).requires_grad_();
      pair.B = at::randn({module.out, rank}, make_generator(++seed), at::kFloat).mul_(0.3).requires_grad_();
      parameters_.insert(parameters_.end(), {pair.A, pair.B});
      injections_.push_back({module.name, pair});
    }
    model_.inject(injections_);
  }
  CausalModel& model() { return model_; }
  const std::vector<Injection>& injections() const { return injections_; }
  Tried run(const Batch& batch) {
    for (auto& parameter : parameters_) parameter.mutable_grad() = at::Tensor();
    auto loss = model_.loss(batch);
    loss.backward();
    std::vector<at::Tensor> all;
    for (const auto& parameter : parameters_) all.push_back(parameter.grad().reshape({-1}));
    return {loss.item<double>(), at::cat(all)};
  }
  void move(const at::Tensor& by, double times) {
    const at::NoGradGuard no_grad;
    std::int64_t at = 0;
    for (auto& parameter : parameters_) {
      parameter.add_(by.narrow(0, at, parameter.numel()).view(parameter.sizes()), times);
      at += parameter.numel();
    }
  }

 private:
  CausalModel model_;
  std::vector<Injection> injections_;
  std::vector<at::Tensor> parameters_;
};

Batch batch_of(std::int64_t rows, std::int64_t length, bool packed) {
  Batch batch{.tokens = at::randint(0, 41, {rows, length}, make_generator(5), at::kLong),
              .labels = at::randint(0, 41, {rows, length}, make_generator(6), at::kLong)};
  if (!packed) return batch;
  batch.segments = at::zeros({rows, length}, at::kLong);
  batch.segments.narrow(1, length / 3, length - length / 3).fill_(1);
  batch.segments[0].narrow(0, length - 2, 2).fill_(-1);
  batch.labels[0].narrow(0, length - 2, 2).fill_(-100);
  return batch;
}

double apart(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }
double cosine(const at::Tensor& a, const at::Tensor& b) {
  return ((a * b).sum() / (a.norm() * b.norm())).item<double>();
}

}  // namespace

TEST_CASE("the fast form of a block has the loss and the gradients of the plain one") {
  struct Case {
    Shape shape;
    std::int64_t rows, length;
    bool packed;
  };
  const Case cases[] = {
      {{}, 3, 7, false},
      {{}, 2, 1, false},
      {{}, 2, 150, true},
      {{.window = 5}, 1, 140, false},
      {{.width = 33, .inner = 21, .heads = {.query = 3, .key_value = 3, .dim = 7}, .turned = 4}, 2, 19, true}};
  for (const auto& one : cases) {
    const auto batch = batch_of(one.rows, one.length, one.packed);
    Trial plain(one.shape, {.kernels = Kernels::Plain}), fast(one.shape, {}), again(one.shape, {.recompute = true});
    const auto want = plain.run(batch), found = fast.run(batch), small = again.run(batch);
    INFO("length " << one.length << ", window " << one.shape.window.value_or(0));
    CHECK(found.loss == Approx(want.loss).epsilon(1e-5));
    CHECK(apart(found.gradient, want.gradient) < 1e-4);
    CHECK(small.loss == found.loss);
    CHECK(apart(small.gradient, found.gradient) < 1e-6);
    const at::NoGradGuard no_grad;
    CHECK(apart(fast.model().hidden(batch), plain.model().hidden(batch)) < 1e-4);
    Trial half(one.shape, {.compute = DType::bf16});
    const at::AutoGradMode grad(true);
    const auto rough = half.run(batch);
    CHECK(rough.loss == Approx(want.loss).epsilon(0.03));
    CHECK(cosine(rough.gradient, want.gradient) > 0.995);
  }
}

TEST_CASE("gradients of the fast form are slopes of its loss") {
  const auto batch = batch_of(2, 9, true);
  Trial fast({}, {});
  const auto found = fast.run(batch);
  const auto way = at::randn(found.gradient.sizes(), make_generator(3), at::kFloat);
  constexpr double kStep = 3e-3;
  fast.move(way, kStep);
  const auto above = fast.run(batch).loss;
  fast.move(way, -2 * kStep);
  const auto below = fast.run(batch).loss;
  const auto slope = (found.gradient * way).sum().item<double>();
  CHECK((above - below) / (2 * kStep) == Approx(slope).epsilon(0.03).margin(0.05));
}

TEST_CASE("a pass keeps what its backward pass needs while others run, and while other pairs are injected") {
  const auto batch = batch_of(2, 9, false), other = batch_of(1, 20, false);
  Trial fast({}, {});
  const auto want = fast.run(batch);
  const auto once = fast.run(other);
  auto& model = fast.model();
  for (auto& injection : fast.injections())
    for (auto parameter : {std::get<LowRank>(injection.what).A, std::get<LowRank>(injection.what).B})
      parameter.mutable_grad() = at::Tensor();
  auto first = model.loss(batch), second = model.loss(other);
  model.inject({});
  {
    const at::NoGradGuard no_grad;
    CHECK(std::isfinite(model.loss(batch).item<double>()));
  }
  second.backward();
  first.backward();
  std::vector<at::Tensor> all;
  for (auto& injection : fast.injections())
    for (const auto& parameter : {std::get<LowRank>(injection.what).A, std::get<LowRank>(injection.what).B})
      all.push_back(parameter.grad().reshape({-1}));
  CHECK(apart(at::cat(all), want.gradient + once.gradient) < 1e-5);
}

TEST_CASE("token by token through a cache the fast form gives the logits of the whole text") {
  const at::NoGradGuard no_grad;
  const Shape shapes[] = {
      {}, {.window = 5}, {.width = 33, .inner = 21, .heads = {.query = 3, .key_value = 3, .dim = 7}, .turned = 4}};
  for (const auto& shape : shapes) {
    for (const auto compute : {DType::f32, DType::bf16}) {
      for (const std::int64_t rows : {1, 3}) {
        INFO("window " << shape.window.value_or(0) << ", rows " << rows << ", bf16 " << (compute == DType::bf16));
        const auto batch = batch_of(rows, 14, false);
        Trial plain(shape, {.compute = DType::f32, .kernels = Kernels::Plain}), fast(shape, {.compute = compute});
        const auto want = plain.model().logits({.tokens = batch.tokens}, nullptr);
        const auto cache = fast.model().cache(rows, 14);
        std::vector<at::Tensor> parts{
            fast.model().logits({.tokens = batch.tokens.narrow(1, 0, 6).contiguous()}, cache.get())};
        for (std::int64_t t = 6; t < 14; ++t)
          parts.push_back(fast.model().logits({.tokens = batch.tokens.narrow(1, t, 1).contiguous()}, cache.get()));
        CHECK(apart(at::cat(parts, 1), want) < (compute == DType::f32 ? 1e-5 : 2e-2));
      }
    }
  }
}

TEST_CASE("of a text's beginning a generation computes the last row of logits alone") {
  const at::NoGradGuard no_grad;
  Trial trial({}, {});
  const auto tokens = batch_of(2, 9, false).tokens;
  auto labels = at::full({2, 9}, -100, at::kLong);
  labels.select(1, 8).fill_(0);
  const auto cache = trial.model().cache(2, 9);
  const auto last = trial.model().logits({.tokens = tokens, .labels = labels}, cache.get()).select(1, 8);
  CHECK(apart(last, trial.model().logits({.tokens = tokens}, nullptr).select(1, 8)) < 1e-6);
}

TEST_CASE("products of low-rank pairs are sums over rows, whatever the widths") {
  for (const std::int64_t rows : {1, 19, 128, 301})
    for (const std::int64_t columns : {1, 2, 6, 13})
      for (const std::int64_t width : {1, 15, 64, 65, 191, 200}) {
        const auto by = at::randn({rows, columns + 2}, make_generator(1), at::kFloat);
        const auto x = at::randn({rows, width + 3}, make_generator(2), at::kFloat);
        for (const bool half : {false, true}) {
          const auto seen = half ? x.to(at::kBFloat16) : x, seen_by = half ? by.to(at::kBFloat16) : by;
          auto factor = at::empty({rows, columns}, at::kFloat), sum = at::zeros({columns, width}, at::kFloat);
          const auto fill = [&]<class T>(T) {
            const auto& pass = fast::passes<T>();
            pass.thin_factor(static_cast<const T*>(seen_by.const_data_ptr()), columns + 2, rows, columns,
                             factor.data_ptr<float>());
            pass.low_rank_product({.by = factor.const_data_ptr<float>(),
                                   .x = static_cast<const T*>(seen.const_data_ptr()),
                                   .sum = sum.data_ptr<float>(),
                                   .x_stride = width + 3,
                                   .sum_stride = width,
                                   .rows = rows,
                                   .columns = columns,
                                   .factor = 0.5F},
                                  0, width);
          };
          if (half)
            fill(fast::Half{});
          else
            fill(0.0F);
          const auto wide_by = seen_by.to(at::kDouble).narrow(1, 0, columns);
          const auto want = at::mm(wide_by.t(), seen.to(at::kDouble).narrow(1, 0, width)) * 0.5;
          INFO(rows << " rows, " << columns << " x " << width << (half ? ", bf16" : ""));
          CHECK(apart(sum.to(at::kDouble), want) < 2e-6);
        }
      }
}

TEST_CASE("the fused cross-entropy equals the plain one") {
  const auto hidden = at::randn({37, 12}, make_generator(1), at::kFloat),
             weight = at::randn({53, 12}, make_generator(2), at::kFloat);
  const auto labels = at::randint(0, 53, {37}, make_generator(3), at::kLong);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    auto one = hidden.to(type).clone().requires_grad_(), other = hidden.to(type).clone().requires_grad_();
    auto one_weight = weight.to(type).clone().requires_grad_(), other_weight = weight.to(type).clone().requires_grad_();
    auto fast = chunked_cross_entropy(one, one_weight, labels, 8);
    auto plain = chunked_cross_entropy(other, other_weight, labels, 8, 0, Kernels::Plain);
    fast.backward();
    plain.backward();
    const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
    CHECK(fast.item<double>() == Approx(plain.item<double>()).epsilon(1e-5));
    CHECK(apart(one.grad().to(at::kFloat), other.grad().to(at::kFloat)) < tolerance);
    CHECK(apart(one_weight.grad().to(at::kFloat), other_weight.grad().to(at::kFloat)) < tolerance);
  }
}
