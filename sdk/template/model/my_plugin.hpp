// Model "my_plugin": a table of logits, one row for each token, so that a token depends on the one before it only. Reads a
// Hugging Face directory whose config.json says model_type "my_plugin". Replace the architecture; keep to the rules of
// hansa/model.hpp: injections are live, unsupported ones are refused by name.
#pragma once
#include <hansa/model.hpp>

namespace example {

class MyPlugin final : public hansa::Stateless<hansa::Model> {
 public:
  bool accepts(const std::filesystem::path& checkpoint) const override;
  std::vector<hansa::Module> modules(const std::filesystem::path& checkpoint) const override;
  void open(const std::filesystem::path& checkpoint, const hansa::Opening&) override;
  void initialise(const std::filesystem::path& checkpoint, const hansa::Opening&, std::uint64_t seed) override;
  std::int64_t vocabulary() const override { return vocabulary_; }
  std::int64_t max_length() const override { return 1 << 20; }
  std::pair<at::Tensor, at::Tensor> base(std::string_view module) const override;
  std::vector<std::pair<std::string, at::Tensor>> merged() const override;
  void inject(std::span<const hansa::Injection>) override;
  void enable_dropout(std::uint64_t) override {}  // it has none
  void disable_dropout() override {}
  at::Tensor loss(const hansa::Batch&) override;
  at::Tensor label_losses(const hansa::Batch&) override;
  std::unique_ptr<hansa::Cache> cache(std::int64_t batch, std::int64_t most) const override;
  at::Tensor logits(const hansa::Batch&, hansa::Cache*) override;
  at::Tensor counted_logits(const hansa::Batch&) override;
  at::Tensor hidden(const hansa::Batch&) override;

 private:
  at::Tensor rows(const at::Tensor& tokens) const;  // the logits after each token

  std::int64_t vocabulary_ = 0;
  at::Tensor table_;     // the base's, fp32 [vocabulary, vocabulary]
  at::Tensor injected_;  // in its place, or undefined
};

}  // namespace example
