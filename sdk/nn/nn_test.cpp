// Every building block against a naive form of it.
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include "base/error.hpp"
#include "nn/attention.hpp"
#include "nn/cross_entropy.hpp"
#include "nn/layers.hpp"
#include "nn/low_rank.hpp"
#include "nn/rope.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::nn;

namespace {

at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, make_generator(seed), at::kFloat);
}

Places one_linear(std::int64_t in, std::int64_t out) {
  Places places({Module{.name = "fc", .in = in, .out = out, .bias = true}});
  places.at("fc").weight = normal({out, in}, 1);
  places.at("fc").bias = normal({out}, 2);
  return places;
}

Batch ids_of(at::Tensor tokens, at::Tensor segments = {}) {
  return {.tokens = std::move(tokens), .segments = std::move(segments)};
}

// One query at a time, one head at a time, in double.
at::Tensor naive_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& segments,
                           double scale) {
  auto out = at::zeros(q.sizes(), at::kDouble);
  const auto group = q.size(2) / k.size(2);
  for (std::int64_t b = 0; b < q.size(0); ++b)
    for (std::int64_t t = 0; t < q.size(1); ++t)
      for (std::int64_t h = 0; h < q.size(2); ++h) {
        auto query = q[b][t][h].to(at::kDouble);
        std::vector<at::Tensor> scores, values;
        for (std::int64_t s = 0; s <= t; ++s) {
          if (segments.defined() && segments[b][s].item<std::int64_t>() != segments[b][t].item<std::int64_t>())
            continue;
          scores.push_back((query * k[b][s][h / group].to(at::kDouble)).sum() * scale);
          values.push_back(v[b][s][h / group].to(at::kDouble));
        }
        auto weights = at::stack(scores).softmax(0);
        out[b][t][h].copy_((weights.unsqueeze(1) * at::stack(values)).sum(0));
      }
  return out.view({q.size(0), q.size(1), -1}).to(at::kFloat);
}

}  // namespace

TEST_CASE("grouped attention equals one query at a time, with and without packed documents") {
  const AttentionSpec spec{.heads = {.query = 6, .key_value = 2, .dim = 5}, .scale = 0.3};
  auto q = normal({2, 7, 6, 5}, 1), k = normal({2, 7, 2, 5}, 2), v = normal({2, 7, 2, 5}, 3);
  auto segments = at::zeros({2, 7}, at::kLong);
  segments[0].narrow(0, 3, 4).fill_(1);
  segments[1].narrow(0, 5, 2).fill_(-1);
  Dropout off;
  for (const auto& packed : {at::Tensor(), segments}) {
    auto visible = visibility(spec, Sees::Past, ids_of(at::zeros({2, 7}, at::kLong), packed), nullptr, at::kFloat, off);
    auto out = attention(q, k, v, spec, visible, off, nullptr, 0);
    CHECK(at::allclose(out, naive_attention(q, k, v, packed, 0.3), 1e-5, 1e-5));
  }
}

TEST_CASE("long rows take another path with the same result") {
  AttentionSpec spec{.heads = {.query = 4, .key_value = 2, .dim = 8}, .scale = 0.3, .dropout = 0.5};
  const std::int64_t length = 1100;
  auto q = normal({1, length, 4, 8}, 1), k = normal({1, length, 2, 8}, 2), v = normal({1, length, 2, 8}, 3);
  auto segments = at::zeros({1, length}, at::kLong);
  segments.narrow(1, 600, 500).fill_(1);
  Dropout off;
  for (const auto& packed : {at::Tensor(), segments}) {
    auto batch = ids_of(at::zeros({1, length}, at::kLong), packed);
    auto flash = visibility(spec, Sees::Past, batch, nullptr, at::kFloat, off);
    REQUIRE(flash.flash);
    Dropout on;
    on.enable(1);
    auto plain = visibility(spec, Sees::Past, batch, nullptr, at::kFloat, on);
    REQUIRE_FALSE(plain.flash);
    CHECK(at::allclose(attention(q, k, v, spec, flash, off, nullptr, 0),
                       attention(q, k, v, spec, plain, off, nullptr, 0), 1e-4, 1e-5));
  }
}

TEST_CASE("attention that continues a cache equals attention over the whole row") {
  const AttentionSpec spec{.heads = {.query = 4, .key_value = 2, .dim = 6}, .scale = 0.5};
  auto q = normal({2, 9, 4, 6}, 1), k = normal({2, 9, 2, 6}, 2), v = normal({2, 9, 2, 6}, 3);
  Dropout off;
  KeyValueCache cache(1, 2, spec.heads, 12, at::kFloat);
  std::vector<at::Tensor> parts;
  for (auto [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 5}, {5, 1}, {6, 3}}) {
    auto visible = visibility(spec, Sees::Past, ids_of(at::zeros({2, count}, at::kLong)), &cache, at::kFloat, off);
    parts.push_back(attention(q.narrow(1, first, count), k.narrow(1, first, count), v.narrow(1, first, count), spec,
                              visible, off, &cache, 0));
    cache.advance(count);
  }
  CHECK(at::allclose(at::cat(parts, 1), naive_attention(q, k, v, {}, 0.5), 1e-5, 1e-5));
}

TEST_CASE("rotary positions turn each pair by position times frequency") {
  const std::int64_t dim = 8;
  Rope rope(RopeSettings{.dim = dim, .theta = 500});
  auto x = normal({1, 3, 2, dim}, 4);
  auto positions = at::arange(3, at::kLong).unsqueeze(0) + 300;  // beyond the first table
  auto out = Rope::rotate(x, rope.rows(positions, at::kFloat));
  for (std::int64_t t = 0; t < 3; ++t)
    for (std::int64_t i = 0; i < dim / 2; ++i) {
      const double angle = static_cast<double>(300 + t) * std::pow(500.0, -2.0 * static_cast<double>(i) / dim);
      const double a = x[0][t][1][i].item<double>(), b = x[0][t][1][i + dim / 2].item<double>();
      CHECK(out[0][t][1][i].item<double>() == Approx(a * std::cos(angle) - b * std::sin(angle)).margin(1e-4));
      CHECK(out[0][t][1][i + dim / 2].item<double>() == Approx(b * std::cos(angle) + a * std::sin(angle)).margin(1e-4));
    }
}

TEST_CASE("llama3 scaling keeps high frequencies and divides low ones by the factor") {
  RopeSettings settings{.dim = 64, .theta = 500000, .scaling = RopeSettings::Llama3{.factor = 8}};
  auto scaled = rope_frequencies(settings);
  settings.scaling = std::monostate();
  auto plain = rope_frequencies(settings);
  CHECK(scaled[0].item<double>() == plain[0].item<double>());
  CHECK(scaled[31].item<double>() == Approx(plain[31].item<double>() / 8));
}

TEST_CASE("chunked cross-entropy and its gradients equal the plain form") {
  auto hidden = normal({23, 6}, 1), weight = normal({11, 6}, 2);
  auto labels = at::randint(0, 11, {23}, make_generator(3), at::kLong);
  auto plain_hidden = hidden.clone().requires_grad_(true), plain_weight = weight.clone().requires_grad_(true);
  auto plain = -at::log_softmax(at::mm(plain_hidden, plain_weight.t()), 1).gather(1, labels.unsqueeze(1)).sum();
  (plain * 0.5).backward();
  for (std::int64_t chunk : {1, 7, 23, 64}) {
    auto h = hidden.clone().requires_grad_(true), w = weight.clone().requires_grad_(true);
    auto loss = chunked_cross_entropy(h, w, labels, chunk);
    (loss * 0.5).backward();
    CHECK(loss.item<double>() == Approx(plain.item<double>()).epsilon(1e-5));
    CHECK(at::allclose(h.grad(), plain_hidden.grad(), 1e-4, 1e-5));
    CHECK(at::allclose(w.grad(), plain_weight.grad(), 1e-4, 1e-5));
  }
}

TEST_CASE("labels of -100 count nothing, and a batch without labels costs zero") {
  Places places({Module{.name = "head", .kind = Module::Kind::Head, .in = 6, .out = 11}});
  places.at("head").weight = normal({11, 6}, 2);
  auto hidden = normal({2, 3, 6}, 1).requires_grad_(true);
  auto labels = at::full({2, 3}, -100, at::kLong);
  Dropout off;
  CHECK(head_loss(places.at("head"), hidden, labels, off).item<double>() == 0);
  labels[1][2].fill_(4);
  auto loss = head_loss(places.at("head"), hidden, labels, off);
  auto alone = head_loss(places.at("head"), hidden[1][2].view({1, 6}), at::full({1}, 4, at::kLong), off);
  CHECK(loss.item<float>() == alone.item<float>());
  loss.backward();
  CHECK(hidden.grad()[0].abs().max().item<double>() == 0);
}

TEST_CASE("a low-rank pair adds scale B A x, and gradients reach fp32 masters from bf16 compute") {
  auto places = one_linear(6, 4);
  auto x = normal({3, 6}, 5);
  auto A = normal({2, 6}, 6).requires_grad_(true), B = normal({4, 2}, 7).requires_grad_(true);
  std::vector<Injection> pair{{"fc", LowRank{A, B, 0.5, 0}}};
  places.inject(pair);
  Dropout off;
  auto y = linear(places.at("fc"), x, off);
  auto [weight, bias] = Places::folded(places.at("fc"), places.at("fc").weight, places.at("fc").bias);
  CHECK(at::allclose(y, at::mm(x, weight.t()) + bias, 1e-4, 1e-5));
  for (auto* tensor : {&places.at("fc").weight, &places.at("fc").bias}) *tensor = tensor->to(at::kBFloat16);
  linear(places.at("fc"), x.to(at::kBFloat16), off).sum().backward();
  CHECK(A.grad().scalar_type() == at::kFloat);
  auto expected = 0.5 * at::mm(B.detach().sum(0).unsqueeze(1), x.sum(0).unsqueeze(0));
  CHECK(at::allclose(A.grad(), expected, 0.05, 0.05));
}

TEST_CASE("a pair on the head equals its folded weight") {
  Places places({Module{.name = "head", .kind = Module::Kind::Head, .in = 6, .out = 11}});
  places.at("head").weight = normal({11, 6}, 2);
  std::vector<Injection> pair{{"head", LowRank{normal({3, 6}, 4), normal({11, 3}, 5), 2, 0}}};
  places.inject(pair);
  auto hidden = normal({9, 6}, 1);
  auto labels = at::randint(0, 11, {9}, make_generator(3), at::kLong);
  Dropout off;
  auto with = head_loss(places.at("head"), hidden, labels, off);
  auto folded = Places::folded(places.at("head"), places.at("head").weight, {}).first;
  CHECK(with.item<double>() == Approx(chunked_cross_entropy(hidden, folded, labels, 4).item<double>()).epsilon(1e-5));
}

TEST_CASE("dropout is a function of its seed, keeps the mean and is off by default") {
  auto x = at::ones({1000, 10});
  Dropout dropout;
  CHECK(dropout.apply(x, 0.5).is_same(x));
  dropout.enable(7);
  auto first = dropout.apply(x, 0.25), second = dropout.apply(x, 0.25);
  CHECK_FALSE(first.equal(second));
  CHECK(first.mean().item<double>() == Approx(1).margin(0.05));
  dropout.enable(7);
  CHECK(dropout.apply(x, 0.25).equal(first));
  CHECK(dropout.apply(x, 1).abs().max().item<double>() == 0);
}

TEST_CASE("injections that do not fit are refused by name, and then nothing has changed") {
  auto places = one_linear(6, 4);
  std::vector<Injection> good{{"fc", LowRank{normal({2, 6}, 1), normal({4, 2}, 2), 1, 0}}};
  places.inject(good);
  auto refused = [&](Injection injection, const std::string& word) {
    std::vector<Injection> all{std::move(injection)};
    CHECK_THROWS_WITH(places.inject(all), Catch::Matchers::Contains(word));
    CHECK(places.at("fc").injected.low_rank);
  };
  refused({"fd", LowRank{}}, "no module 'fd'");
  refused({"fc", LowRank{normal({2, 5}, 1), normal({4, 2}, 2), 1, 0}}, "A is 2 x 5, it must be 2 x 6");
  refused({"fc", LowRank{normal({2, 6}, 1), normal({4, 3}, 2), 1, 0}}, "B is 4 x 3, it must be 4 x 2");
  refused({"fc", Replace{}}, "neither a weight nor a bias");
  auto refused_after_good = [&](Injection second, const std::string& words) {
    std::vector<Injection> both{good[0], std::move(second)};
    CHECK_THROWS_WITH(places.inject(both), Catch::Matchers::Contains(words));
    CHECK(places.at("fc").injected.fixed.empty());
  };
  const auto A = normal({2, 6}, 1), B = normal({4, 2}, 2);
  refused_after_good({"fc", LowRank{A, B.clone().requires_grad_(true)}}, "two injections into 'fc' train");
  refused_after_good({"fc", LowRank{A, B, 1, 0.1}}, "takes no dropout");
  refused_after_good({"fc", LowRank{A, normal({4, 3}, 2)}}, "B is 4 x 3");
  refused_after_good({"fc", LowRank{.A = A, .B = B, .magnitude = normal({4}, 3)}}, "a fixed pair is a plain one");
}

TEST_CASE("fixed pairs beside a pair change the frozen weight, and gradients pass them by") {
  auto places = one_linear(6, 4);
  auto leaf = [](const at::Tensor& t) { return t.clone().requires_grad_(true); };
  auto x = leaf(normal({3, 6}, 5)), A = leaf(normal({2, 6}, 6)), B = leaf(normal({4, 2}, 7));
  auto plain_x = leaf(x.detach()), plain_A = leaf(A.detach()), plain_B = leaf(B.detach());
  const LowRank first{normal({3, 6}, 8), normal({4, 3}, 9), 2, 0}, second{normal({5, 6}, 10), normal({4, 5}, 11), 1, 0};
  std::vector<Injection> injections{{"fc", LowRank{A, B, 0.5, 0}}, {"fc", first}, {"fc", second}};
  places.inject(injections);
  Dropout off;
  auto y = linear(places.at("fc"), x, off);
  const auto& fc = places.at("fc");
  auto frozen = fc.weight + 2 * at::mm(first.B, first.A) + at::mm(second.B, second.A);
  auto plain = at::mm(plain_x, (frozen + 0.5 * at::mm(plain_B, plain_A)).t()) + fc.bias;
  CHECK(at::allclose(y, plain, 1e-4, 1e-5));
  CHECK(at::allclose(Places::folded(fc, fc.weight, fc.bias).first, frozen + 0.5 * at::mm(B, A).detach(), 1e-4, 1e-5));
  auto pull = normal({3, 4}, 12);
  (y * pull).sum().backward();
  (plain * pull).sum().backward();
  CHECK(at::allclose(x.grad(), plain_x.grad(), 1e-4, 1e-4));
  CHECK(at::allclose(A.grad(), plain_A.grad(), 1e-4, 1e-5));
  CHECK(at::allclose(B.grad(), plain_B.grad(), 1e-4, 1e-5));
  std::vector<Injection> alone{injections[0]};
  places.inject(alone);
  CHECK(fc.injected.fixed.empty());
}

TEST_CASE("fixed pairs keep what a bf16 base would round away, in linear layers and in the head") {
  // Two columns that all but cancel: rounded to bf16 one by one, nothing is left of their difference.
  const auto a = normal({1, 6}, 1), b = normal({4, 1}, 2), little = normal({4, 1}, 3) * 1e-3;
  const LowRank fixed{at::cat({a, a}, 0), at::cat({b, little - b}, 1), 1, 0};
  const LowRank trained{at::zeros({1, 6}), at::zeros({4, 1}), 1, 0};
  Places places(
      {Module{.name = "fc", .in = 6, .out = 4}, Module{.name = "head", .kind = Module::Kind::Head, .in = 6, .out = 4}});
  std::vector<Injection> injections{{"fc", trained}, {"fc", fixed}, {"head", trained}, {"head", fixed}};
  for (const auto* name : {"fc", "head"}) places.at(name).weight = at::zeros({4, 6}, at::kBFloat16);
  places.inject(injections);
  Dropout off;
  const auto x = normal({3, 6}, 4).to(at::kBFloat16);
  const auto want = at::mm(at::mm(x.to(at::kFloat), a.t()), little.t());
  const auto got = linear(places.at("fc"), x, off);
  CHECK(got.scalar_type() == at::kBFloat16);
  CHECK(at::allclose(got.to(at::kFloat), want, 0.01, 1e-7));
  const auto labels = at::zeros({3}, at::kLong);
  const auto loss = head_loss(places.at("head"), x, labels, off), plain = -at::log_softmax(want, 1).select(1, 0).sum();
  CHECK(std::abs(loss.item<double>() - plain.item<double>()) < 1e-5);
  CHECK(std::abs(plain.item<double>() - 3 * std::log(4.0)) > 1e-4);  // the difference is there to be seen
}

TEST_CASE("the joined low-rank form has the gradients of the plain form, with and without dropout") {
  auto x = normal({5, 6}, 1), weight = normal({4, 6}, 2), A = normal({2, 6}, 3), B = normal({4, 2}, 4),
       bias = normal({4}, 5);
  auto dropout_mask = at::randint(0, 2, {5, 6}, make_generator(6), at::kFloat);
  auto leaf = [](const at::Tensor& t) { return t.clone().requires_grad_(true); };
  for (bool dropped : {false, true})
    for (bool with_bias : {false, true}) {
      auto x1 = leaf(x), A1 = leaf(A), B1 = leaf(B), x2 = leaf(x), A2 = leaf(A), B2 = leaf(B);
      auto used_bias = with_bias ? bias : at::Tensor();
      auto joined = low_rank_linear(x1, dropped ? x1 * dropout_mask : x1, weight, used_bias, A1, B1, 0.5);
      auto seen = dropped ? x2 * dropout_mask : x2;
      auto plain = at::mm(x2, weight.t()) + at::mm(at::mm(seen, A2.t()), B2.t()) * 0.5;
      if (with_bias) plain = plain + bias;
      CHECK(at::allclose(joined, plain, 1e-4, 1e-5));
      auto pull = normal({5, 4}, 7);
      (joined * pull).sum().backward();
      (plain * pull).sum().backward();
      CHECK(at::allclose(x1.grad(), x2.grad(), 1e-4, 1e-5));
      CHECK(at::allclose(A1.grad(), A2.grad(), 1e-4, 1e-5));
      CHECK(at::allclose(B1.grad(), B2.grad(), 1e-4, 1e-5));
    }
}
