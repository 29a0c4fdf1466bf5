// Adapter `full`: all parameters of the model train, starting at the base's values. Training thread; layout() is pure.
#pragma once
#include <hansa/adapter.hpp>

namespace hansa::full {

class Full final : public Stateless<Adapter> {
 public:
  Layout layout(std::span<const Module>, double rank) const override;
  void create(const Model&, std::span<const Module>, double rank, std::uint64_t seed) override;
  at::Tensor parameter(Index) override;
  std::vector<Injection> injections() override;
  // A Transformers checkpoint: config.json and tokenizer files of the base (a directory), and all weights in fp32.
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override;
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 private:
  void take(const Module&, at::Tensor weight, at::Tensor bias);

  std::vector<Module> modules_;
  std::vector<at::Tensor> tensors_;  // in the layout's order: weight, then bias where there is one
};

}  // namespace hansa::full
