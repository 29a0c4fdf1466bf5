// For the tests of trainers: a small llama with random weights and an adapter, loaded from the real plugin files as a node
// loads them, and batches of tokens in which there is something to learn. The test's target names HANSA_PLUGIN_FILE and
// depends on the plugins that it asks for.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ops/empty.h>
#include <hansa/trainer.hpp>

#include "base/file.hpp"
#include "plugin_host/instance.hpp"
#include "plugin_host/registry.hpp"
#include "test.hpp"

namespace hansa::trainer_tests {

class RealParts {
 public:
  explicit RealParts(const std::string& adapter_name, Value params = Value(), const Opening& opening = {}) {
    const auto folder = std::filesystem::path(HANSA_PLUGIN_FILE).parent_path();
    registry.scan({folder / "hansa_llama.so", "the test"});
    registry.scan({folder / ("hansa_" + adapter_name + ".so"), "the test"});
    write_file_atomically(directory.path() / "config.json", R"({"model_type": "llama", "hidden_size": 20,
 "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37, "num_attention_heads": 4, "num_key_value_heads": 2,
 "head_dim": 6, "max_position_embeddings": 64, "initializer_range": 0.2})",
                          Durability::Process);
    model = create<Model>(registry, "llama", Value(), HostServices{});
    adapter = create<Adapter>(registry, adapter_name, params, HostServices{});
    const auto modules = model->modules(directory.path());
    model->initialise(directory.path(), opening, 5);
    layout = adapter->layout(modules, 0);
    adapter->create(*model, modules, 0, 6);
    model->inject(adapter->injections());
    for (Index i = 0; i < layout.tensors.size(); ++i) created.push_back(adapter->parameter(i).detach().clone());
  }
  StrategyRegistry registry;
  TemporaryDirectory directory;
  Instance<Model> model;
  Instance<Adapter> adapter;
  Layout layout;
  std::vector<at::Tensor> created;  // the adapter's parameters as they were made
};

class Counting : public Stateless<DataSource> {  // rows that count up by a step of the silo's own
 public:
  explicit Counting(std::int64_t step) : step_(step) {}
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 100; }
  void shuffle(std::uint64_t seed) override { next_ = static_cast<std::int64_t>(seed % 37); }
  void rewind() override { next_ = 0; }
  std::optional<Batch> next(std::int64_t rows) override {
    constexpr std::int64_t kLength = 12;
    Batch batch;
    batch.tokens = at::empty({rows, kLength}, at::TensorOptions().dtype(at::kLong));
    batch.labels = at::empty({rows, kLength}, at::TensorOptions().dtype(at::kLong));
    for (std::int64_t r = 0; r < rows; ++r, ++next_) {
      for (std::int64_t c = 0; c < kLength; ++c) {
        batch.tokens.mutable_data_ptr<std::int64_t>()[r * kLength + c] = (next_ + c * step_) % 37;
        batch.labels.mutable_data_ptr<std::int64_t>()[r * kLength + c] = (next_ + (c + 1) * step_) % 37;
      }
    }
    batch.counted = rows * kLength;
    batch.documents = rows;
    return batch;
  }

 private:
  std::int64_t step_, next_ = 0;
};

// The same as pairs: one prompt of four tokens, the better answer goes on as the prompt did, the worse one by another step. Of
// different lengths, so that there is padding.
class Pairs : public Counting {
 public:
  explicit Pairs(std::int64_t step) : Counting(step) {}
  std::optional<Batch> next(std::int64_t rows) override {
    constexpr std::int64_t kPrompt = 4;
    auto batch = Counting::next(rows);
    batch->task = Task::Preference;
    batch->documents = rows / 2;
    batch->counted = 0;
    const auto length = batch->tokens.size(1);
    for (std::int64_t r = 0; r < rows; ++r) {
      auto* tokens = batch->tokens.mutable_data_ptr<std::int64_t>() + r * length;
      auto* labels = batch->labels.mutable_data_ptr<std::int64_t>() + r * length;
      const auto* better = tokens - (r % 2) * length;
      const auto end = length - (r + r / 2) % 3;
      for (std::int64_t c = 0; c < length; ++c) {
        tokens[c] = c < kPrompt || r % 2 == 0 ? better[c] : (tokens[c - 1] + 5) % 37;
        if (c > 0) labels[c - 1] = c < kPrompt || c >= end ? -100 : tokens[c];
      }
      labels[length - 1] = -100;
      for (std::int64_t c = 0; c < length; ++c) batch->counted += labels[c] >= 0 ? 1 : 0;
    }
    return batch;
  }
};

}  // namespace hansa::trainer_tests
