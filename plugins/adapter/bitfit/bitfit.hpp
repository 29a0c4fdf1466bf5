// BitFit: see bitfit.cpp and README.md.
#pragma once
#include <adapters/module_adapter.hpp>

namespace hansa::bitfit {

struct Params {
  std::vector<std::string> targets{"all"};
  std::vector<std::int64_t> blocks{};
  std::vector<std::string> modules_to_save{};
};

class BitFit final : public adapters::ModuleAdapter {
 public:
  explicit BitFit(Params params) : ModuleAdapter("bitfit", params.modules_to_save), params_(std::move(params)) {}

 protected:
  std::vector<adapters::Part> parts(std::span<const Module>, double rank) const override;
  Tensors fresh(const Model&, const adapters::Part&, at::Generator&) override;
  void inject(const adapters::Part&, const Tensors&, std::vector<Injection>&) const override;
  std::vector<std::string> ends() const override { return {"bias"}; }
  void check_stored(const std::filesystem::path&, const adapters::Part&) const override;

 private:
  Params params_;
};

}  // namespace hansa::bitfit
