#include "front_checks.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <nn/dropout.hpp>

#include "base/error.hpp"
#include "test.hpp"

namespace hansa::model_checks {

namespace {

constexpr std::int64_t kCount = 3;
enum class Form { Prompt, Prefix };

std::shared_ptr<Model> initialised_front(const Subject& subject) {
  auto model = subject.make();
  model->initialise(subject.directory, {}, 5);
  return model;
}

const Module& embedding_of(const std::vector<Module>& modules) {
  return *std::ranges::find(modules, Module::Kind::Embedding, &Module::kind);
}

std::vector<Injection> front(const std::vector<Module>& modules, Form form, std::int64_t count = kCount) {
  auto generator = nn::make_generator(21);
  const auto random = [&](at::IntArrayRef shape) {
    return at::randn(shape, generator, at::kFloat).mul_(0.5).requires_grad_(true);
  };
  const auto& tokens = embedding_of(modules);
  if (form == Form::Prompt) return {{tokens.name, Prompt{random({count, tokens.out})}}};
  std::vector<Injection> all;
  for (const auto& module : modules)
    if (module.kind == Module::Kind::Attention)
      all.push_back(
          {module.name, Prefix{random({count, module.in, module.out}), random({count, module.in, module.out})}});
  return all;
}

std::vector<at::Tensor> front_parameters(const std::vector<Injection>& injections) {
  std::vector<at::Tensor> all;
  for (const auto& [module, what] : injections) {
    if (const auto* prompt = std::get_if<Prompt>(&what)) all.push_back(prompt->rows);
    if (const auto* prefix = std::get_if<Prefix>(&what)) all.insert(all.end(), {prefix->keys, prefix->values});
  }
  return all;
}

}  // namespace

void soft_tokens_are_as_words(const Subject& subject, double embedding_scale) {
  at::NoGradGuard no_grad;
  auto model = initialised_front(subject);
  const auto modules = model->modules(subject.directory);
  const auto batch = one_segment_batch(2, 10, model->vocabulary(), 1);
  const auto words = at::arange(4, 4 + kCount, at::kLong);
  const auto longer = at::cat({words.unsqueeze(0).expand({2, kCount}), batch.tokens}, 1);
  const auto whole = model->logits({.tokens = longer}, nullptr).narrow(1, kCount, 10);
  const auto rows = model->base(embedding_of(modules).name).first.index_select(0, words) * embedding_scale;
  const std::vector<Injection> prompt{{embedding_of(modules).name, Prompt{rows}}};
  CHECK_FALSE(at::allclose(model->logits(batch, nullptr), whole, 1e-3, 1e-3));
  model->inject(prompt);
  CHECK(at::allclose(model->logits(batch, nullptr), whole, 1e-4, 1e-5));
}

void fronts_agree_however_rows_are_computed(const Subject& subject) {
  at::NoGradGuard no_grad;
  const auto kLong = at::kLong;
  auto model = initialised_front(subject);
  const auto modules = model->modules(subject.directory);
  const auto batch = one_segment_batch(2, 10, model->vocabulary(), 1);
  const auto plain = model->logits(batch, nullptr);
  for (const auto form : {Form::Prompt, Form::Prefix}) {
    model->inject(front(modules, form));
    const auto whole = model->logits(batch, nullptr);
    CHECK_FALSE(at::allclose(whole, plain, 1e-3, 1e-3));
    auto cache = model->cache(2, 12);
    std::vector<at::Tensor> parts;
    for (auto [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 6}, {6, 1}, {7, 3}})
      parts.push_back(model->logits({.tokens = batch.tokens.narrow(1, first, count)}, cache.get()));
    CHECK(cache->length() == 10);
    CHECK(at::allclose(at::cat(parts, 1), whole, 1e-4, 1e-5));
    // Two documents and padding in a row.
    const auto a = one_segment_batch(1, 5, model->vocabulary(), 1), b = one_segment_batch(1, 4, model->vocabulary(), 2);
    const Batch packed{
        .tokens = at::cat({a.tokens, b.tokens, at::zeros({1, 2}, kLong)}, 1),
        .labels = at::cat({a.labels, b.labels, at::full({1, 2}, -100, kLong)}, 1),
        .positions = at::cat({at::arange(5, kLong), at::arange(4, kLong), at::zeros({2}, kLong)}).unsqueeze(0),
        .segments = at::cat({at::zeros({5}, kLong), at::ones({4}, kLong), at::full({2}, -1, kLong)}).unsqueeze(0),
        .counted = 9};
    const double apart = model->loss(a).item<double>() + model->loss(b).item<double>();
    CHECK(model->loss(packed).item<double>() == Approx(apart).epsilon(1e-5));
    const auto logits = model->logits(packed, nullptr);
    CHECK(at::allclose(logits.narrow(1, 5, 4), model->logits(b, nullptr), 1e-4, 1e-5));
    CHECK(logits.isfinite().all().item<bool>());
    CHECK(at::allclose(model->label_losses(packed).sum(), model->loss(packed), 1e-4, 1e-5));
    model->inject({});
    CHECK(model->logits(batch, nullptr).equal(plain));
  }
}

void gradients_of_fronts_equal_finite_differences(const Subject& subject) {
  auto model = initialised_front(subject);
  const auto batch = one_segment_batch(2, 6, model->vocabulary(), 1);
  for (const auto form : {Form::Prompt, Form::Prefix}) {
    const auto injections = front(model->modules(subject.directory), form);
    model->inject(injections);
    model->loss(batch).backward();
    const at::NoGradGuard no_grad;
    std::uint64_t seed = 0;
    for (auto& parameter : front_parameters(injections)) {
      REQUIRE(parameter.grad().defined());
      auto direction = at::randn(parameter.sizes(), nn::make_generator(++seed), at::kFloat);
      direction /= direction.norm().item<double>();
      const double step = 2e-2;
      const auto moved = [&](double by) {
        parameter.add_(direction, by);
        const double loss = model->loss(batch).item<double>();
        parameter.add_(direction, -by);
        return loss;
      };
      const double slope = (moved(step) - moved(-step)) / (2 * step);
      CHECK((parameter.grad() * direction).sum().item<double>() == Approx(slope).epsilon(0.03).margin(5e-3));
    }
  }
}

void fronts_take_room(const Subject& subject) {
  using Catch::Matchers::Contains;
  auto model = initialised_front(subject);
  const auto modules = model->modules(subject.directory);
  const auto most = model->max_length();
  const auto before = model->cache(1, 8);
  for (const auto form : {Form::Prompt, Form::Prefix}) {
    model->inject(front(modules, form));
    CHECK(model->max_length() == most - kCount);
    CHECK_THROWS_WITH(model->logits({.tokens = at::zeros({1, most - kCount + 1}, at::kLong)}, nullptr),
                      Contains("longest sequence"));
    CHECK_THROWS_WITH(model->logits({.tokens = at::zeros({1, 2}, at::kLong)}, before.get()),
                      Contains("virtual tokens"));
    CHECK_THROWS_WITH(model->inject(front(modules, form, most)), Contains("leave no room"));
    CHECK_THROWS_WITH(model->merged(), Contains("cannot be merged"));
  }
  auto some = front(modules, Form::Prefix);
  some.pop_back();
  CHECK_THROWS_WITH(model->inject(some), Contains("all attention layers have one, or none"));
}

}  // namespace hansa::model_checks
