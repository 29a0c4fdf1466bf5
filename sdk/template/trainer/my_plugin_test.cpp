#include "my_plugin.hpp"

#include <cmath>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::testing::promise;

namespace {

// Two parameters; the loss of a token is the squared distance of both to 3.
struct TwoNumbers final : hansa::Stateless<hansa::Adapter> {
  std::vector<at::Tensor> held{at::zeros({2}), at::zeros({1})};
  hansa::Layout layout(std::span<const hansa::Module>, double) const override {
    return {{{"x", hansa::DType::f32, {2}}, {"y", hansa::DType::f32, {1}}}, {{"", {0}}, {"", {1}}}};
  }
  void create(const hansa::Model&, std::span<const hansa::Module>, double, std::uint64_t) override {}
  at::Tensor parameter(hansa::Index index) override { return held.at(index); }
  std::vector<hansa::Injection> injections() override { return {}; }
  void export_to(const hansa::Model&, std::span<const hansa::Module>, const std::string&,
                 const std::filesystem::path&) const override {}
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const hansa::Model&, std::span<const hansa::Module>) override {}
};
struct Bowl final : hansa::testing::BareModel {
  explicit Bowl(TwoNumbers& numbers) : numbers_(numbers) {}
  at::Tensor loss(const hansa::Batch& batch) override {
    const auto x = numbers_.held[0].sub(3).square().sum(), y = numbers_.held[1].sub(3).square().sum();
    return x.add(y).mul(static_cast<double>(batch.counted));
  }
  TwoNumbers& numbers_;
};
struct Endless final : hansa::Stateless<hansa::DataSource> {
  void open(const std::filesystem::path&, const hansa::Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 1; }
  void shuffle(std::uint64_t) override {}
  void rewind() override {}
  std::optional<hansa::Batch> next(std::int64_t) override { return hansa::Batch{.counted = 4, .documents = 1}; }
};

void the_steps_are_as_by_hand_and_what_is_frozen_stays() {
  hansa::testing::QuietHost host;
  TwoNumbers numbers;
  Bowl model(numbers);
  Endless data;
  hansa::TrainContext context;
  context.exchange.roles = {hansa::Role::Shared, hansa::Role::Frozen};
  const auto result = MyPlugin({.learning_rate = 0.1, .steps = 2}, host).train(model, numbers, data, context);
  const double first = 0.1 * 6, second = first + 0.1 * 2 * (3 - first);
  promise(std::abs(numbers.held[0].detach().const_data_ptr<float>()[1] - second) < 1e-6, "another value");
  promise(numbers.held[1].const_data_ptr<float>()[0] == 0, "a frozen parameter moved");
  promise(result.steps == 2 && result.tokens == 8 && result.examples == 2, "other counts");
  promise(result.metrics[0].first == "loss" && result.metrics[0].second < 27, "the loss did not fall");
  host.cancel = true;
  hansa::testing::promise_throws([&] { MyPlugin({}, host).train(model, numbers, data, context); }, "went on");
}

}  // namespace

int main() {
  return hansa::testing::run_cases(
      {{"the steps are as by hand, and what is frozen stays", the_steps_are_as_by_hand_and_what_is_frozen_stays}});
}
