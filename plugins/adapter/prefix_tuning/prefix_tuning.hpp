// Prefixes of keys and values: see prefix_tuning.cpp and README.md.
#pragma once
#include <adapters/module_adapter.hpp>

namespace hansa::prefix_tuning {

struct Params {
  std::int64_t tokens = 20;
  double deviation = 0.02;
};

class PrefixTuning final : public adapters::ModuleAdapter {
 public:
  explicit PrefixTuning(Params params) : ModuleAdapter("prefix_tuning", {}), params_(params) {}
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override;
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 protected:
  std::vector<adapters::Part> parts(std::span<const Module>, double rank) const override;
  Tensors fresh(const Model&, const adapters::Part&, at::Generator&) override;
  void inject(const adapters::Part&, const Tensors&, std::vector<Injection>&) const override;

 private:
  adapters::Part part_for(const Module&, std::int64_t tokens) const;
  std::vector<Module> layers_of(std::span<const Module>) const;

  Params params_;
};

}  // namespace hansa::prefix_tuning
