// Bottlenecks: see bottleneck.cpp and README.md.
#pragma once
#include <adapters/module_adapter.hpp>

namespace hansa::bottleneck {

using Activation = hansa::Bottleneck::Activation;

struct Params {
  std::vector<std::string> targets{"auto"};
  std::vector<std::int64_t> blocks{};
  std::int64_t width = 16;
  Activation activation = Activation::Gelu;
  std::vector<std::string> modules_to_save{};
};

class Bottleneck final : public adapters::ModuleAdapter {
 public:
  explicit Bottleneck(Params params)
      : ModuleAdapter("bottleneck", params.modules_to_save), params_(std::move(params)) {}

 protected:
  std::vector<adapters::Part> parts(std::span<const Module>, double rank) const override;
  Tensors fresh(const Model&, const adapters::Part&, at::Generator&) override;
  void inject(const adapters::Part&, const Tensors&, std::vector<Injection>&) const override;
  std::vector<std::string> ends() const override;
  void check_stored(const std::filesystem::path&, const adapters::Part&) const override;
  adapters::Settings settings() const override;
  void restore(const adapters::Settings&) override;

 private:
  Params params_;  // the activation is that of the directory after an import
};

}  // namespace hansa::bottleneck
