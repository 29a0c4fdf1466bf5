// Soft prompts: see prompt_tuning.cpp and README.md.
#pragma once
#include <adapters/module_adapter.hpp>

namespace hansa::prompt_tuning {

enum class Start : std::uint8_t { Vocabulary, Random };

struct Params {
  std::int64_t tokens = 20;
  Start start = Start::Vocabulary;
};

class PromptTuning final : public adapters::ModuleAdapter {
 public:
  explicit PromptTuning(Params params) : ModuleAdapter("prompt_tuning", {}), params_(params) {}
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override;
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 protected:
  std::vector<adapters::Part> parts(std::span<const Module>, double rank) const override;
  Tensors fresh(const Model&, const adapters::Part&, at::Generator&) override;
  void inject(const adapters::Part&, const Tensors&, std::vector<Injection>&) const override;

 private:
  Params params_;
};

}  // namespace hansa::prompt_tuning
