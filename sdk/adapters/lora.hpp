// The family of low-rank pairs: lora (arXiv 2106.09685), dora (2402.09353) and ffa_lora (2403.12313), and fixed fp32 factors for
// what a rule adds to the frozen weights (channel "residual"). Training thread; layout() is pure.
#pragma once
#include <map>
#include <optional>

#include "adapters/module_adapter.hpp"
#include "adapters/side.hpp"

namespace hansa::adapters {

enum class PairForm : std::uint8_t {
  Plain,   // A and B train
  Dora,    // and the length of each row of the sum
  FixedA,  // B trains; A stands as the seed made it
};
enum class PairStart : std::uint8_t {
  Default,     // A uniform, B zero
  Pissa,       // the largest part of the weight, which is taken out of the frozen weight (arXiv 2404.02948)
  Orthogonal,  // neither is zero, their product is
};

struct OwnRank {  // of the modules that it names
  std::string target;
  std::optional<std::int64_t> r;
  std::optional<double> alpha;
};

struct LoraParams {
  std::vector<std::string> targets{"all-linear"};
  std::int64_t r = 8;
  double alpha = 16, dropout = 0;
  bool rslora = false;
  PairStart start = PairStart::Default;
  double b_rate = 1;
  std::vector<OwnRank> patterns{};
  std::vector<std::int64_t> blocks{};
  std::vector<std::string> modules_to_save{};
};

class Lora : public ModuleAdapter {
 public:
  Lora(std::string name, PairForm form, LoraParams params)
      : ModuleAdapter(std::move(name), params.modules_to_save), form_(form), params_(std::move(params)) {}
  // "<module>.residual_A" [n, in] and "<module>.residual_B" [out, n] of channel "residual" are added to what was received.
  void receive(Model&, const Download&) override;
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override;
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 protected:
  std::vector<Part> parts(std::span<const Module>, double rank) const override;
  void begin(const Model&, const std::vector<Part>&, std::uint64_t seed) override;
  Tensors fresh(const Model&, const Part&, at::Generator&) override;
  void inject(const Part&, const Tensors&, std::vector<Injection>&) const override;
  double rate_of(const TensorSpec&) const override;

 private:
  struct Pair {
    at::Tensor A, B;
  };
  Part part_for(const Module&, std::int64_t rank, double alpha) const;
  double scale(std::int64_t rank, double alpha) const;
  double alpha_of(const std::string& module) const;
  Pair pair_of(const Part&, const Tensors&) const;
  Pair whole_pair(const Part&, const Tensors&) const;  // pair and side as one pair of scale 1
  void start_sides();
  void check_patterns(const std::vector<Module>& chosen) const;

  PairForm form_;
  LoraParams params_;                  // dropout and rslora are those of the directory after an import
  NumberPattern alphas_;               // of imported modules
  std::map<std::string, Pair> fixed_;  // FixedA: A of each module. Pissa: what each pair started as
  std::map<std::string, Side> sides_;  // beside the pairs: what Pissa takes out, what was received
};

}  // namespace hansa::adapters
