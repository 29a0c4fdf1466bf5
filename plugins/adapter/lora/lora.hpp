// Adapter `lora`: a low-rank pair beside chosen linear modules (arXiv 2106.09685), and fixed fp32 factors for what a rule adds
// to the frozen weights (channel "residual"). Training thread; layout() is pure.
#pragma once
#include <hansa/adapter.hpp>

#include "peft.hpp"
#include "side.hpp"

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
  Layout layout(std::span<const Module>, double rank) const override;
  void create(const Model&, std::span<const Module>, double rank, std::uint64_t seed) override;
  at::Tensor parameter(Index) override;
  std::vector<Injection> injections() override;
  // "<module>.residual_A" [n, in] and "<module>.residual_B" [out, n] of channel "residual" are added to what was received.
  void receive(Model&, const Download&) override;
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override { return is_peft_lora(directory); }
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 private:
  struct Shape {  // of one pair
    std::int64_t rank;
    double alpha;
    bool operator==(const Shape&) const = default;
  };
  struct Held {
    Module module;
    at::Tensor A, B;
    double alpha;
    Side side;
  };
  // The modules that hold a pair, in the model's order.
  std::vector<std::pair<Module, Shape>> chosen(std::span<const Module>, double rank) const;
  std::vector<std::pair<Module, Shape>> imported(std::span<const Module>, double rank) const;
  double scale(const Shape&) const;
  Pair exported(const Held&) const;  // pair and residual as one pair of scale 1

  Params params_;                          // dropout and rslora are those of the directory after an import
  std::map<std::string, Shape> imported_;  // its modules; they are the targets then
  std::vector<Held> held_;
};

}  // namespace hansa::lora
