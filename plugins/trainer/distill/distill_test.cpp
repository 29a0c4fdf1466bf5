#include "distill.hpp"

#include <fstream>
#include <map>

#include <ATen/core/grad_mode.h>
#include <ATen/core/Reduction.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/kl_div.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/TensorOperators.h>
#include <hf/tensors.hpp>

#include <hansa/testing/bare_model.hpp>

#include "../real_parts.hpp"
#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::distill;
using Catch::Matchers::Contains;
using trainer_tests::Counting, trainer_tests::Pairs, trainer_tests::RealParts;

namespace {

TrainContext round_of(const RealParts& parts) {
  TrainContext context;
  context.plan.round = 1;
  context.rounds = 1;
  context.exchange.roles.assign(parts.layout.tensors.size(), Role::Shared);
  return context;
}

// A llama of another shape, written to disk, that has learnt nothing but has an opinion.
struct Teacher {
  explicit Teacher(StrategyRegistry& registry, std::int64_t vocabulary = 37) {
    write_file_atomically(
        directory.path() / "config.json",
        R"({"model_type": "llama", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 1, "vocab_size": )" +
            std::to_string(vocabulary) +
            R"(, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
 "initializer_range": 0.4})",
        Durability::Process);
    model = create<Model>(registry, "llama", Value(), HostServices{});
    model->initialise(directory.path(), {}, 9);
    hf::save_tensors(directory.path() / "model.safetensors", model->merged());
  }
  TemporaryDirectory directory;
  Instance<Model> model;
};

// The real plugin, which opens the real one that its parameters name.
Instance<Trainer> make(StrategyRegistry& registry, std::vector<std::pair<std::string, Value>> params) {
  params.emplace_back("batch", Value::integer(4));
  params.emplace_back("learning_rate", Value::real(0.02));
  const auto& component = require(registry, Trainer::kKind, "distill");
  return create<Trainer>(registry, component, with_defaults(component, Value::table(std::move(params))),
                         HostServices{});
}
Instance<Trainer> taught_by(const Teacher& teacher, RealParts& parts, double weight, std::int64_t steps = 40) {
  return make(parts.registry, {{"from", Value::choice("teacher")},
                               {"teacher", Value::component("llama")},
                               {"teacher_path", Value::path(teacher.directory.path().string())},
                               {"student_path", Value::path(parts.directory.path().string())},
                               {"weight", Value::real(weight)},
                               {"steps", Value::integer(steps)}});
}
std::map<std::string, double> learn(RealParts& parts, Trainer& trainer) {
  Counting data(3);
  const auto result = trainer.train(*parts.model, *parts.adapter, data, round_of(parts));
  return {result.metrics.begin(), result.metrics.end()};
}
struct Parts : RealParts {
  Parts() : RealParts("lora") { registry.scan({HANSA_PLUGIN_FILE, "the test"}); }
};
void write_tokens(const std::filesystem::path& directory, const std::string& third) {
  write_file_atomically(
      directory / "tokenizer.json",
      R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, ")" + third + R"(": 2}, "merges": []}})",
      Durability::Process);
}

}  // namespace

TEST_CASE("loss and gradient equal autograd over the formula") {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const auto student = at::randn({300, 11}, generator, at::kFloat) * 2,
             teacher = at::randn({300, 11}, generator, at::kFloat) * 2;
  const auto labels = at::randint(11, {300}, generator, at::kLong);
  for (double T : {1.0, 3.0})
    for (double weight : {0.0, 0.4, 1.0}) {
      auto a = student.clone().requires_grad_(true), b = student.clone().requires_grad_(true);
      const auto kl = at::kl_div(at::log_softmax(a / T, 1), at::log_softmax(teacher / T, 1), at::Reduction::Sum, true);
      const auto hard = at::nll_loss(at::log_softmax(a, 1), labels, {}, at::Reduction::Sum);
      const auto want = hard * (1 - weight) + kl * (weight * T * T);
      (want * 0.25).backward();
      const auto found = mixed_loss(b, teacher, labels, {T, weight});
      (found.sum * 0.25).backward();
      CHECK(found.sum.item<double>() == Approx(want.item<double>()).epsilon(1e-5));
      CHECK(found.hard == Approx(hard.item<double>()).epsilon(1e-5));
      CHECK(found.soft == Approx(kl.item<double>()).epsilon(1e-5));
      CHECK(at::allclose(a.grad(), b.grad(), 1e-4, 1e-6));
    }
}

TEST_CASE("a student comes nearer to a teacher of another shape") {
  Parts parts;
  const Teacher teacher(parts.registry);
  const auto before = learn(parts, *taught_by(teacher, parts, 1, 1)).at("divergence");
  learn(parts, *taught_by(teacher, parts, 1));
  const auto told = learn(parts, *taught_by(teacher, parts, 1, 1));
  CHECK(told.at("divergence") < 0.8 * before);
  CHECK(told.at("loss_first") == Approx(4 * told.at("divergence")));
}

TEST_CASE("the teacher's weight is between the labels alone and the teacher alone") {
  Parts labels, plain;
  const Teacher teacher(labels.registry);
  learn(labels, *taught_by(teacher, labels, 0, 4));
  testing::QuietHost host;
  Counting data(3);
  train::Params params;
  params.steps = 4;
  params.batch = 4;
  params.learning_rate = 0.02;
  train::run(params, host, *plain.model, *plain.adapter, data, round_of(plain));
  for (Index i = 0; i < plain.created.size(); ++i) {
    const auto difference = (plain.adapter->parameter(i) - labels.adapter->parameter(i)).norm().item<double>();
    CHECK(difference < 1e-2 * (plain.adapter->parameter(i) - plain.created[i]).norm().item<double>() + 1e-6);
  }
}

TEST_CASE("the round's own start has nothing to teach at first, and holds back later") {
  Parts free, held;
  const auto self = [](Parts& parts, double weight, std::int64_t steps) {
    return make(
        parts.registry,
        {{"from", Value::choice("round_start")}, {"weight", Value::real(weight)}, {"steps", Value::integer(steps)}});
  };
  CHECK(learn(free, *self(free, 0.5, 1)).at("divergence") == Approx(0).margin(1e-6));
  learn(free, *self(free, 0.0, 30));
  learn(held, *self(held, 0.9, 30));
  const auto loss = [](Parts& parts) {
    const at::NoGradGuard no_grad;
    Counting data(3);
    return parts.model->loss(*data.next(8)).item<double>();
  };
  CHECK(loss(free) < loss(held));
}

TEST_CASE("teachers that do not fit are refused by name, and pairs too") {
  Parts parts;
  const Teacher teacher(parts.registry), wide(parts.registry, 41);
  CHECK_THROWS_WITH(learn(parts, *taught_by(wide, parts, 0.5)), Contains("41 logits") && Contains("37"));
  write_tokens(teacher.directory.path(), "c");
  CHECK_THROWS_WITH(learn(parts, *taught_by(teacher, parts, 0.5)), Contains("has none"));
  write_tokens(parts.directory.path(), "d");
  CHECK_THROWS_WITH(learn(parts, *taught_by(teacher, parts, 0.5)), Contains("token 2 is 'c'") && Contains("'d'"));
  write_tokens(parts.directory.path(), "c");
  CHECK_NOTHROW(learn(parts, *taught_by(teacher, parts, 0.5, 1)));
  write_file_atomically(teacher.directory.path() / "config.json", R"({"model_type": "gpt2"})", Durability::Process);
  CHECK_THROWS_WITH(learn(parts, *taught_by(teacher, parts, 0.5)), Contains("is not a model of 'llama'"));

  Parts self;
  Pairs pairs(3);
  const auto trainer = make(self.registry, {{"from", Value::choice("round_start")}});
  CHECK_THROWS_WITH(trainer->train(*self.model, *self.adapter, pairs, round_of(self)), Contains("would learn both"));
}
