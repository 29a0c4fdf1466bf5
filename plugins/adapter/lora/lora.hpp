// Adapter `lora`: a low-rank pair beside chosen linear modules (arXiv 2106.09685). Training thread; layout() is pure.
#pragma once
#include <hansa/adapter.hpp>

#include "peft.hpp"

namespace hansa::lora {

struct Params {
  std::vector<std::string> targets{"all-linear"};
  std::int64_t r = 8;
  double alpha = 16, dropout = 0;
  bool rslora = false;
};

class Lora final : public Stateless<Adapter> {
 public:
  explicit Lora(Params params) : params_(std::move(params)) {}
  Layout layout(std::span<const Module>) const override;
  void create(const Model&, std::span<const Module>, std::uint64_t seed) override;
  at::Tensor parameter(Index) override;
  std::vector<Injection> injections() override;
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override { return is_peft_lora(directory); }
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 private:
  struct Held {
    Module module;
    at::Tensor A, B;
  };
  std::vector<Module> chosen(std::span<const Module>) const;  // in the model's order
  double scale() const;

  Params params_;                      // those of the directory after an import
  std::vector<std::string> imported_;  // its modules; they are the targets then
  std::vector<Held> held_;
};

}  // namespace hansa::lora
