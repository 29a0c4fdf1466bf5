// VeRA: see vera.cpp and README.md.
#pragma once
#include <adapters/module_adapter.hpp>

namespace hansa::vera {

struct Params {
  std::vector<std::string> targets{"all-linear"};
  std::vector<std::int64_t> blocks{};
  std::int64_t r = 256;
  double initial = 0.1, dropout = 0;
  std::int64_t projection_key = 0;
  std::vector<std::string> modules_to_save{};
};

class Vera final : public adapters::ModuleAdapter {
 public:
  explicit Vera(Params params) : ModuleAdapter("vera", params.modules_to_save), params_(std::move(params)) {}
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override;
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 protected:
  std::vector<adapters::Part> parts(std::span<const Module>, double rank) const override;
  void begin(const Model&, const std::vector<adapters::Part>&, std::uint64_t seed) override;
  Tensors fresh(const Model&, const adapters::Part&, at::Generator&) override;
  void inject(const adapters::Part&, const Tensors&, std::vector<Injection>&) const override;

 private:
  adapters::Part part_for(const Module&) const;
  void draw_projections(std::int64_t in, std::int64_t out);

  Params params_;     // r, dropout and key are those of the directory after an import
  at::Tensor A_, B_;  // [r, widest input], [widest output, r]: fixed, shared by all modules
};

}  // namespace hansa::vera
