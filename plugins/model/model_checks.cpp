#include "model_checks.hpp"

#include <fstream>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <unistd.h>

#include <hf/tensors.hpp>
#include <nn/dropout.hpp>
#include <nn/places.hpp>

#include "base/error.hpp"
#include "test.hpp"

namespace hansa::model_checks {

namespace {

std::shared_ptr<Model> initialised(const Subject& subject, DType compute = DType::f32) {
  auto model = subject.make();
  model->initialise(subject.directory, {.compute = compute}, 5);
  return model;
}

std::vector<at::Tensor> parameters_of(const std::vector<Injection>& injections) {
  std::vector<at::Tensor> all;
  for (const auto& injection : injections) {
    const auto& pair = std::get<LowRank>(injection.what);
    all.push_back(pair.A);
    all.push_back(pair.B);
  }
  return all;
}

std::int64_t resident_pages() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident;
}

// Some steps of plain gradient descent with dropout; the parameters afterwards, flattened.
at::Tensor train(const Subject& subject, int steps) {
  auto model = initialised(subject);
  auto injections = random_pairs(model->modules(subject.directory), 2, 0.1, 3);
  model->inject(injections);
  auto parameters = parameters_of(injections);
  model->enable_dropout(11);
  for (int step = 0; step < steps; ++step) {
    auto batch = one_segment_batch(2, 8, model->vocabulary(), static_cast<std::uint64_t>(step % 7));
    model->loss(batch).backward();
    at::NoGradGuard no_grad;
    for (auto& parameter : parameters) {
      parameter.sub_(parameter.grad(), 1e-3);
      parameter.mutable_grad() = at::Tensor();
    }
  }
  std::vector<at::Tensor> flat;
  for (auto& parameter : parameters) flat.push_back(parameter.detach().reshape({-1}));
  return at::cat(flat);
}

void save(const Model& model, const std::filesystem::path& config_from, const std::filesystem::path& directory) {
  std::filesystem::create_directories(directory);
  std::filesystem::copy_file(config_from / "config.json", directory / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  hf::save_tensors(directory / "model.safetensors", model.merged());
}

}  // namespace

void write_text(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }

Batch one_segment_batch(std::int64_t rows, std::int64_t length, std::int64_t vocabulary, std::uint64_t seed) {
  auto ids = at::randint(0, vocabulary, {rows, length + 1}, nn::make_generator(seed), at::kLong);
  return {.tokens = ids.narrow(1, 0, length).contiguous(),
          .labels = ids.narrow(1, 1, length).contiguous(),
          .bytes = rows * length,
          .counted = rows * length,
          .documents = rows};
}

std::vector<Injection> random_pairs(std::span<const Module> modules, std::int64_t rank, double dropout,
                                    std::uint64_t seed) {
  auto generator = nn::make_generator(seed);
  std::vector<Injection> injections;
  for (const auto& module : modules) {
    if (module.kind != Module::Kind::Linear) continue;
    auto random = [&](std::int64_t rows, std::int64_t columns) {
      auto tensor = at::randn({rows, columns}, generator, at::kFloat);
      return (tensor * 0.1).requires_grad_(true);
    };
    auto A = random(rank, module.in), B = random(module.out, rank);
    injections.push_back({module.name, LowRank{A, B, 2, dropout}});
  }
  return injections;
}

// On the meta device tensors have shapes alone, and LibTorch refuses most operators a tensor of the CPU among them: what a model
// makes on the CPU by oversight shows without a GPU.
void stays_on_its_device(const Subject& subject) {
  const auto there = at::TensorOptions().dtype(at::kFloat).device(at::kMeta);
  for (const auto compute : {DType::f32, DType::bf16}) {
    auto model = subject.make();
    model->initialise(subject.directory, {.device = at::kMeta, .compute = compute}, 1);
    auto pairs = random_pairs(model->modules(subject.directory), 2, 0.1, 3);
    std::vector<at::Tensor> parameters;
    for (auto& injection : pairs) {
      auto& pair = std::get<LowRank>(injection.what);
      for (auto* side : {&pair.A, &pair.B}) {
        *side = at::empty(side->sizes(), there).requires_grad_(true);
        parameters.push_back(*side);
      }
    }
    model->inject(pairs);
    auto batch = one_segment_batch(2, 9, model->vocabulary(), 1);
    batch.labels.select(1, 2).fill_(-100);
    auto packed = batch;
    packed.segments = at::cat({at::zeros({2, 4}, at::kLong), at::ones({2, 5}, at::kLong)}, 1);
    packed.positions = at::cat({at::arange(4, at::kLong), at::arange(5, at::kLong)}).expand({2, 9});
    for (const auto& one : {batch, packed}) {
      model->enable_dropout(3);
      auto loss = model->loss(one);
      CHECK(loss.is_meta());
      loss.backward();
      for (auto& parameter : parameters) {
        CHECK(parameter.grad().is_meta());
        parameter.mutable_grad() = at::Tensor();
      }
      model->label_losses(one).sum().backward();
      CHECK(model->label_losses(one).is_meta());
      CHECK(model->counted_logits(one).is_meta());
      model->disable_dropout();
      CHECK(model->logits(one, nullptr).is_meta());
      CHECK(model->hidden(one).is_meta());
    }
    auto cache = model->cache(2, 9);
    CHECK(model->logits({.tokens = batch.tokens.narrow(1, 0, 6)}, cache.get()).is_meta());
    CHECK(model->logits({.tokens = batch.tokens.narrow(1, 6, 1)}, cache.get()).is_meta());
    const auto [weight, bias] = model->base(model->modules(subject.directory).front().name);
    CHECK(weight.is_cpu());
  }
}

void same_seed_same_weights(const Subject& subject) {
  auto first = initialised(subject)->merged(), second = initialised(subject)->merged();
  REQUIRE(first.size() == second.size());
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(first[i].second.equal(second[i].second));
}

void cached_equals_uncached(const Subject& subject) {
  auto model = initialised(subject);
  auto batch = one_segment_batch(2, 10, model->vocabulary(), 1);
  auto whole = model->logits(batch, nullptr);
  auto cache = model->cache(2, 12);
  std::vector<at::Tensor> parts;
  for (auto [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 6}, {6, 1}, {7, 3}})
    parts.push_back(model->logits({.tokens = batch.tokens.narrow(1, first, count)}, cache.get()));
  CHECK(cache->length() == 10);
  CHECK(at::allclose(at::cat(parts, 1), whole, 1e-4, 1e-5));
  CHECK_THROWS_AS(model->logits({.tokens = batch.tokens.narrow(1, 0, 3)}, cache.get()), Error);
}

void packed_documents_are_apart(const Subject& subject) {
  auto model = initialised(subject);
  auto a = one_segment_batch(1, 5, model->vocabulary(), 1), b = one_segment_batch(1, 4, model->vocabulary(), 2);
  const auto kLong = at::kLong;
  Batch packed{
      .tokens = at::cat({a.tokens, b.tokens, at::zeros({1, 2}, kLong)}, 1),
      .labels = at::cat({a.labels, b.labels, at::full({1, 2}, -100, kLong)}, 1),
      .positions = at::cat({at::arange(5, kLong), at::arange(4, kLong), at::zeros({2}, kLong)}).unsqueeze(0),
      .segments = at::cat({at::zeros({5}, kLong), at::ones({4}, kLong), at::full({2}, -1, kLong)}).unsqueeze(0),
      .counted = 9};
  at::NoGradGuard no_grad;
  const double apart = model->loss(a).item<double>() + model->loss(b).item<double>();
  CHECK(model->loss(packed).item<double>() == Approx(apart).epsilon(1e-5));
  auto logits = model->logits(packed, nullptr);
  CHECK(at::allclose(logits.narrow(1, 5, 4), model->logits(b, nullptr), 1e-4, 1e-5));
}

void merged_checkpoint_computes_the_same(const Subject& subject) {
  auto model = initialised(subject);
  auto injections = random_pairs(model->modules(subject.directory), 2, 0, 3);
  auto batch = one_segment_batch(2, 6, model->vocabulary(), 1);
  auto plain = model->logits(batch, nullptr);
  model->inject(injections);
  auto adapted = model->logits(batch, nullptr);
  CHECK_FALSE(at::allclose(plain, adapted, 1e-3, 1e-3));
  TemporaryDirectory temporary;
  save(*model, subject.directory, temporary.path());
  auto reopened = subject.make();
  reopened->open(temporary.path(), {});
  CHECK(at::allclose(reopened->logits(batch, nullptr), adapted, 1e-4, 1e-5));
  model->inject({});
  CHECK(model->logits(batch, nullptr).equal(plain));
}

void gradients_equal_finite_differences(const Subject& subject) {
  auto model = initialised(subject);
  auto injections = random_pairs(model->modules(subject.directory), 2, 0, 3);
  model->inject(injections);
  auto batch = one_segment_batch(2, 6, model->vocabulary(), 1);
  auto parameters = parameters_of(injections);
  model->loss(batch).backward();
  at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters.size(); i += 3) {
    auto parameter = parameters[i];
    auto direction = at::randn(parameter.sizes(), nn::make_generator(i), at::kFloat);
    direction /= direction.norm().item<double>();
    const double step = 2e-2;
    auto moved = [&](double by) {
      parameter.add_(direction, by);
      const double loss = model->loss(batch).item<double>();
      parameter.add_(direction, -by);
      return loss;
    };
    const double slope = (moved(step) - moved(-step)) / (2 * step);
    CHECK((parameter.grad() * direction).sum().item<double>() == Approx(slope).epsilon(0.03).margin(5e-3));
  }
}

void two_runs_are_bit_equal(const Subject& subject) { CHECK(train(subject, 12).equal(train(subject, 12))); }

// AddressSanitizer keeps what was freed for a while (256 MB), and finds what was never freed at the end: steps then only
// give it something to look at.
#ifdef __SANITIZE_ADDRESS__
constexpr int kManySteps = 200, kMostGrownMiB = 256 + 16;
#else
constexpr int kManySteps = 2500, kMostGrownMiB = 16;
#endif

void memory_stays(const Subject& subject) {
  train(subject, 200);
  const auto before = resident_pages();
  train(subject, kManySteps);
  const auto grown = (resident_pages() - before) * sysconf(_SC_PAGESIZE);
  CHECK(grown < kMostGrownMiB << 20);
}

void bf16_is_near_fp32(const Subject& subject) {
  auto wide = initialised(subject), narrow = initialised(subject, DType::bf16);
  auto batch = one_segment_batch(2, 8, wide->vocabulary(), 1);
  at::NoGradGuard no_grad;
  const double expected = wide->loss(batch).item<double>();
  CHECK(narrow->loss(batch).item<double>() == Approx(expected).epsilon(0.02));
  auto name = wide->modules(subject.directory).front().name;
  CHECK(narrow->base(name).first.equal(wide->base(name).first));  // full precision all the same
}

void wrong_files_are_refused(const Subject& subject) {
  using Catch::Matchers::Contains;
  auto model = initialised(subject);
  TemporaryDirectory temporary;
  const auto directory = temporary.path();
  save(*model, subject.directory, directory);
  const auto tensors = model->merged();
  auto save_changed = [&](auto change) {
    auto changed = tensors;
    change(changed);
    hf::save_tensors(directory / "model.safetensors", changed);
  };
  auto open = [&] { subject.make()->open(directory, {}); };
  CHECK_NOTHROW(open());
  save_changed([](auto& all) { all.pop_back(); });
  CHECK_THROWS_WITH(open(), Contains("'" + tensors.back().first + "' is missing"));
  save_changed([](auto& all) { all.emplace_back("model.mystery.weight", at::ones({2})); });
  CHECK_THROWS_WITH(open(), Contains("'model.mystery.weight'"));
  save_changed([](auto& all) { all.front().second = all.front().second.narrow(0, 0, 3).contiguous(); });
  CHECK_THROWS_WITH(open(), Contains("vocab_size"));
  CHECK_THROWS_WITH(subject.make()->open(directory, {.compute = DType::f16}), Contains("f32 or bf16"));
  std::filesystem::remove(directory / "model.safetensors");
  CHECK_THROWS_AS(open(), Error);
  CHECK_THROWS_WITH(subject.make()->vocabulary(), Contains("before a checkpoint was opened"));
}

void wrong_batches_are_refused(const Subject& subject) {
  using Catch::Matchers::Contains;
  auto model = initialised(subject);
  CHECK_THROWS_WITH(model->logits({.tokens = at::full({1, 2}, model->vocabulary(), at::kLong)}, nullptr),
                    Contains("outside this model's vocabulary"));
  CHECK_THROWS_WITH(model->logits({.tokens = at::zeros({1, model->max_length() + 1}, at::kLong)}, nullptr),
                    Contains("longest sequence"));
  CHECK_THROWS_WITH(model->logits({.tokens = at::zeros({0, 3}, at::kLong)}, nullptr), Contains("at least one"));
}

}  // namespace hansa::model_checks
