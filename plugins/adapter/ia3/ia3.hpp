// (IA)3: see ia3.cpp and README.md.
#pragma once
#include <adapters/module_adapter.hpp>

namespace hansa::ia3 {

struct Params {
  std::vector<std::string> targets{"auto"}, feedforward{"auto"};
  std::vector<std::int64_t> blocks{};
  std::vector<std::string> modules_to_save{};
};

class Ia3 final : public adapters::ModuleAdapter {
 public:
  explicit Ia3(Params params) : ModuleAdapter("ia3", params.modules_to_save), params_(std::move(params)) {}
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

}  // namespace hansa::ia3
