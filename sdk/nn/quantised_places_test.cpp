// A quantised base against a plain one that has the dequantised weights.
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/TensorOperators.h>

#include "base/error.hpp"
#include "nn/causal_model.hpp"
#include "nn/layers.hpp"
#include "nn/transformer.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::nn;

namespace {

constexpr std::int64_t kIn = 96, kOut = 40, kRank = 3;

at::Tensor normal_tensor(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, make_generator(seed), at::kFloat);
}
at::Tensor leaf(at::IntArrayRef shape, std::uint64_t seed) {
  return normal_tensor(shape, seed).mul_(0.1).requires_grad_();
}

std::vector<Injection> injections(const std::string& module, int kind) {
  LowRank pair{.A = leaf({kRank, kIn}, 3), .B = leaf({kOut, kRank}, 4), .scale = 0.5};
  if (kind == 1) pair.magnitude = (normal_tensor({kOut}, 5).abs() + 5).requires_grad_();
  if (kind == 2) {
    pair.inner = leaf({kRank}, 6);
    pair.outer = leaf({kOut}, 7);
  }
  std::vector<Injection> all{{module, pair}};
  if (kind == 3)
    all.push_back({module, LowRank{.A = normal_tensor({2, kIn}, 8), .B = normal_tensor({kOut, 2}, 9), .scale = 0.1}});
  if (kind == 4) all = {{module, Rescale{.by = leaf({kIn}, 10), .of = Rescale::Of::Input}}};
  if (kind == 5) all = {};
  return all;
}

struct Compared {
  at::Tensor y, dx;
  std::vector<at::Tensor> gradients;
};

Compared tried(Places& places, int kind, at::ScalarType type) {
  const auto all = injections("fc", kind);
  places.inject(all);
  Dropout off;
  auto x = normal_tensor({2, 5, kIn}, 1).to(type).requires_grad_();
  auto y = linear(places.at("fc"), x, off);
  (y.to(at::kFloat) * normal_tensor(y.sizes(), 2)).sum().backward();
  Compared result{y.detach(), x.grad(), {}};
  for (const auto& one : all) {
    if (const auto* pair = std::get_if<LowRank>(&one.what)) {
      for (const auto& tensor : {pair->A, pair->B, pair->magnitude, pair->inner, pair->outer})
        if (tensor.defined() && tensor.requires_grad()) result.gradients.push_back(tensor.grad());
    } else {
      result.gradients.push_back(std::get<Rescale>(one.what).by.grad());
    }
  }
  return result;
}

double far_apart(const at::Tensor& a, const at::Tensor& b) {
  const auto left = a.to(at::kFloat), right = b.to(at::kFloat);
  return ((left - right).norm() / right.norm()).item<double>();
}

Architecture quantised_architecture() {
  using Bias = Architecture::Bias;
  Architecture a;
  const Heads heads{.query = 4, .key_value = 2, .dim = 8};
  const auto norm = [&](const std::string& name) { return a.norm(NormSpec::Form::Rms, name, 32, 1e-5); };
  a.spec.embedding.tokens = a.embedding("embed", 41, 32);
  a.spec.ropes = {RopeSettings{8}};
  for (int i = 0; i < 2; ++i) {
    const auto at = "layers." + std::to_string(i) + ".";
    const auto linear = [&](const std::string& name, std::int64_t in, std::int64_t out) {
      return a.linear(at + name, in, out, Bias::With);
    };
    BlockSpec block;
    block.attention_norm = norm(at + "norm");
    block.attention = {.module = {},
                       .query = linear("q", 32, 32),
                       .key = linear("k", 32, 16),
                       .value = linear("v", 32, 16),
                       .output = linear("o", 32, 32),
                       .heads = heads,
                       .scale = 1 / std::sqrt(8.0),
                       .rope = 0};
    block.mlp_norm = norm(at + "norm2");
    block.mlp = {.gate = linear("gate", 32, 70), .up = linear("up", 32, 70), .down = linear("down", 70, 32)};
    a.spec.blocks.push_back(block);
  }
  a.spec.final_norm = norm("norm");
  a.tied_head("head");
  a.plan.vocabulary = 41;
  a.plan.max_length = 100;
  a.plan.layers = 2;
  a.plan.heads = heads;
  a.plan.initial_deviation = [](const Module& module) { return 1 / std::sqrt(static_cast<double>(module.out)); };
  return a;
}

struct Fresh : CausalModel {
  explicit Fresh(const Opening& opening)
      : CausalModel("test", {}, [](const auto&) { return std::make_unique<Transformer>(quantised_architecture()); }) {
    initialise({}, opening, 1);
  }
};

}  // namespace

TEST_CASE("a quantised linear module has the values and gradients of its dequantised weight, whatever is beside it") {
  for (const auto how : {BaseDtype::Nf4, BaseDtype::Int8})
    for (const auto type : {at::kFloat, at::kBFloat16})
      for (int kind = 0; kind <= 5; ++kind) {
        CAPTURE(static_cast<int>(how), static_cast<int>(type), kind);
        const std::vector<Module> modules{{.name = "fc", .in = kIn, .out = kOut, .bias = true}};
        Places plain(modules), quantised(modules);
        auto& place = quantised.at("fc");
        place.stored =
            quantised::StoredWeight(how, normal_tensor({kOut, kIn}, 11), std::make_shared<quantised::Workspace>());
        place.bias = plain.at("fc").bias = normal_tensor({kOut}, 12).to(type);
        plain.at("fc").weight = place.stored.get(type);
        const auto wanted = tried(plain, kind, type), got = tried(quantised, kind, type);
        const double close = type == at::kFloat ? 1e-5 : 0.03;
        CHECK(far_apart(got.y, wanted.y) < close);
        CHECK(far_apart(got.dx, wanted.dx) < close);
        REQUIRE(got.gradients.size() == wanted.gradients.size());
        for (std::size_t i = 0; i < got.gradients.size(); ++i)
          CHECK(far_apart(got.gradients[i], wanted.gradients[i]) < close);
      }
}

TEST_CASE("a quantised weight cannot be trained itself, its bias can") {
  Places places({Module{.name = "fc", .in = kIn, .out = kOut, .bias = true}});
  auto& place = places.at("fc");
  place.stored =
      quantised::StoredWeight(BaseDtype::Nf4, normal_tensor({kOut, kIn}, 11), std::make_shared<quantised::Workspace>());
  place.bias = normal_tensor({kOut}, 12);
  const std::vector<Injection> whole{{"fc", Replace{.weight = leaf({kOut, kIn}, 1)}}};
  CHECK_THROWS_WITH(places.inject(whole), Catch::Contains("'fc'") && Catch::Contains("base_dtype"));
  const std::vector<Injection> bias{{"fc", Replace{.bias = leaf({kOut}, 1)}}};
  places.inject(bias);
  Dropout off;
  linear(place, normal_tensor({5, kIn}, 1), off).sum().backward();
  CHECK(at::allclose(std::get<Replace>(bias[0].what).bias.grad(), 5 * at::ones({kOut}, at::kFloat)));
}

TEST_CASE("a model on a quantised base trains, is merged and holds its embedding as before") {
  for (const auto how : {BaseDtype::Nf4, BaseDtype::Int8}) {
    Fresh quantised({.base = how}), plain({.kernels = Kernels::Plain});
    const Batch batch{.tokens = at::randint(0, 41, {2, 9}, make_generator(5), at::kLong),
                      .labels = at::randint(0, 41, {2, 9}, make_generator(6), at::kLong)};
    std::vector<Injection> pairs, both;
    std::vector<at::Tensor> parameters;
    std::uint64_t seed = 20;
    for (const auto& module : quantised.modules({})) {
      if (module.kind == Module::Kind::Embedding)
        CHECK(at::allclose(quantised.base(module.name).first, plain.base(module.name).first, 0, 0));
      if (module.kind != Module::Kind::Linear) continue;
      LowRank pair{.A = leaf({2, module.in}, ++seed), .B = leaf({module.out, 2}, ++seed)};
      parameters.insert(parameters.end(), {pair.A, pair.B});
      pairs.push_back({module.name, pair});
      both.push_back({module.name, pair});
      both.push_back({module.name, Replace{.weight = quantised.base(module.name).first}});
    }
    const auto run = [&](CausalModel& model, const std::vector<Injection>& injected) {
      model.inject(injected);
      for (auto& parameter : parameters) parameter.mutable_grad() = at::Tensor();
      auto loss = model.loss(batch);
      loss.backward();
      std::vector<at::Tensor> gradients{loss.detach()};
      for (const auto& parameter : parameters) gradients.push_back(parameter.grad());
      return gradients;
    };
    const auto got = run(quantised, pairs), wanted = run(plain, both);
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(far_apart(got[i], wanted[i]) < 1e-4);
    const auto merged = quantised.merged(), reference = plain.merged();
    REQUIRE(merged.size() == reference.size());
    for (std::size_t i = 0; i < merged.size(); ++i) {
      CHECK(merged[i].first == reference[i].first);
      CHECK(at::allclose(merged[i].second, reference[i].second, 1e-5, 1e-6));
    }
  }
}

TEST_CASE("a quantised base goes forward again with the same loss, gradients and dropout masks") {
  const Batch batch{.tokens = at::randint(0, 41, {2, 9}, make_generator(5), at::kLong),
                    .labels = at::randint(0, 41, {2, 9}, make_generator(6), at::kLong)};
  const auto run = [&](const Opening& opening) {
    Fresh model(opening);
    std::vector<Injection> injected;
    std::vector<at::Tensor> parameters;
    std::uint64_t seed = 20;
    for (const auto& module : model.modules({})) {
      if (module.kind == Module::Kind::Norm)
        injected.push_back({module.name, Replace{.weight = leaf({module.out}, ++seed)}});
      if (module.kind == Module::Kind::Linear)
        injected.push_back(
            {module.name,
             LowRank{.A = leaf({2, module.in}, ++seed), .B = leaf({module.out, 2}, ++seed), .dropout = 0.3}});
    }
    for (const auto& one : injected) {
      if (const auto* pair = std::get_if<LowRank>(&one.what))
        parameters.insert(parameters.end(), {pair->A, pair->B});
      else
        parameters.push_back(std::get<Replace>(one.what).weight);
    }
    model.inject(injected);
    model.enable_dropout(7);
    auto loss = model.loss(batch);
    loss.backward();
    std::vector<at::Tensor> all{loss.detach()};
    for (const auto& parameter : parameters) all.push_back(parameter.grad());
    return all;
  };
  const auto kept = run({.base = BaseDtype::Nf4}), again = run({.base = BaseDtype::Nf4, .recompute = true});
  for (std::size_t i = 0; i < kept.size(); ++i) CHECK(far_apart(again[i], kept[i]) < 1e-6);
}
