// Test plugins that move tensors and compute nothing: a model without weights, an adapter of a given size, a trainer that adds
// a constant. The round's overhead is measured with them, and what a kill does to a run with large uploads or with a trainer
// that keeps state.
#include <chrono>
#include <fstream>
#include <limits>
#include <thread>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <hansa/adapter.hpp>
#include <hansa/evaluator.hpp>
#include <hansa/plugin.hpp>
#include <hansa/trainer.hpp>

namespace hansa {
namespace {

[[noreturn]] void never() { throw std::logic_error("the hollow model has no weights"); }

class HollowModel final : public Stateless<Model> {
 public:
  bool accepts(const std::filesystem::path& checkpoint) const override {
    std::ifstream config(checkpoint / "config.json");
    const std::string text{std::istreambuf_iterator<char>(config), {}};
    return text.find("\"hollow\"") != std::string::npos;
  }
  std::vector<Module> modules(const std::filesystem::path&) const override {
    return {{"body", Module::Kind::Linear, 1, 1}};
  }
  void open(const std::filesystem::path&, const Opening&) override {}
  void initialise(const std::filesystem::path&, const Opening&, std::uint64_t) override {}
  std::int64_t vocabulary() const override { return 1; }
  std::int64_t max_length() const override { return 1; }
  std::pair<at::Tensor, at::Tensor> base(std::string_view) const override { never(); }
  std::vector<std::pair<std::string, at::Tensor>> merged() const override { return {}; }
  void inject(std::span<const Injection>) override {}
  void enable_dropout(std::uint64_t) override {}
  void disable_dropout() override {}
  at::Tensor loss(const Batch&) override { never(); }
  at::Tensor label_losses(const Batch&) override { never(); }
  std::unique_ptr<Cache> cache(std::int64_t, std::int64_t) const override { never(); }
  at::Tensor logits(const Batch&, Cache*) override { never(); }
  at::Tensor counted_logits(const Batch&) override { never(); }
  at::Tensor hidden(const Batch&) override { never(); }
};

struct Size {
  std::int64_t tensors = 60, elements = 1000;
};
class FlatTensors final : public Stateless<Adapter> {
 public:
  explicit FlatTensors(Size size) : size_(size) {}
  Layout layout(std::span<const Module>, double) const override {
    Layout layout;
    for (std::int64_t i = 0; i < size_.tensors; ++i) {
      layout.tensors.push_back({"tensor." + std::to_string(i), DType::f32, {size_.elements}});
      layout.groups.push_back({"", {static_cast<Index>(i)}});
    }
    return layout;
  }
  void create(const Model&, std::span<const Module>, double, std::uint64_t) override {
    parameters_.clear();
    for (std::int64_t i = 0; i < size_.tensors; ++i) parameters_.push_back(at::zeros({size_.elements}, at::kFloat));
  }
  at::Tensor parameter(Index index) override { return parameters_.at(index); }
  std::vector<Injection> injections() override { return {}; }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path& directory) const override {
    std::filesystem::create_directories(directory);
  }
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const Model&, std::span<const Module>) override { never(); }

 private:
  Size size_;
  std::vector<at::Tensor> parameters_;
};

struct Step {
  double value = 0.001;
  Seconds takes{0};
};
TrainResult done() { return {1, 1, 1, {{"loss", 1.0}}}; }

class ConstantTrainer final : public Stateless<Trainer> {
 public:
  ConstantTrainer(Step step, Host& host) : step_(step), host_(host) {}
  std::uint64_t steps(std::uint64_t) const override { return 1; }
  TrainResult train(Model&, Adapter& adapter, DataSource&, const TrainContext& context) override {
    const at::NoGradGuard no_grad;
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(step_.takes.value);
    while (std::chrono::steady_clock::now() < until && !host_.cancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // stands for work
      host_.progress(0, 1);
    }
    for (Index i = 0; i < context.exchange.roles.size(); ++i) adapter.parameter(i).add_(step_.value);
    return done();
  }

 private:
  Step step_;
  Host& host_;
};

// Adds how often it was applied before: a round that is lost or counted twice shows in the sum.
class CountingTrainer final : public Trainer {
 public:
  std::uint64_t steps(std::uint64_t) const override { return 1; }
  TrainResult train(Model&, Adapter& adapter, DataSource&, const TrainContext& context) override {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < context.exchange.roles.size(); ++i) adapter.parameter(i).add_(static_cast<double>(rounds_));
    ++rounds_;
    return done();
  }
  std::uint32_t state_version() const override { return 1; }
  void save(StateWriter& out) const override { out.put("rounds", std::to_string(rounds_)); }
  void load(const StateReader& in, std::uint32_t) override { rounds_ = std::stoll(in.bytes("rounds")); }

 private:
  std::int64_t rounds_ = 0;
};

// Fails: when it is made, or with values that are no numbers.
struct Ailment {
  bool at_birth = false;
};
class SickTrainer final : public Stateless<Trainer> {
 public:
  explicit SickTrainer(Ailment ailment) {
    if (ailment.at_birth) throw std::runtime_error("the trainer could not be made: no licence file");
  }
  std::uint64_t steps(std::uint64_t) const override { return 1; }
  TrainResult train(Model&, Adapter& adapter, DataSource&, const TrainContext&) override {
    const at::NoGradGuard no_grad;
    adapter.parameter(0).fill_(std::numeric_limits<double>::quiet_NaN());
    return done();
  }
};

class NoData final : public Stateless<DataSource> {
 public:
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 1; }
  void shuffle(std::uint64_t) override {}
  void rewind() override {}
  std::optional<Batch> next(std::int64_t) override { return std::nullopt; }
};

}  // namespace
}  // namespace hansa

HANSA_PLUGIN(org_hansa_test_hollow, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<HollowModel>("hollow", "A model without weights; for tests.");
  plugin.add<FlatTensors, Size>("flat_tensors", "Tensors of a given size; for tests.")
      .param(&Size::tensors, "tensors", "How many.", range(1, 100000))
      .param(&Size::elements, "elements", "fp32 values in each.", range(1, 1e9));
  plugin.add<ConstantTrainer, Step>("constant", "Adds a constant to every element; for tests.")
      .param(&Step::value, "value", "What is added.")
      .param(&Step::takes, "takes", "How long a turn lasts.");
  plugin.add<CountingTrainer>("counting", "Adds how often it was applied; for tests.");
  plugin.add<SickTrainer, Ailment>("sick", "Fails; for tests.")
      .param(&Ailment::at_birth, "at_birth", "When it is made.");
  plugin.add<NoData>("nothing", "No data; for tests.");
}
