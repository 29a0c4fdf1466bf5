#include <adapters/declare.hpp>

namespace hansa::ffa_lora {

using Params = adapters::LoraParams;

class FfaLora final : public adapters::Lora {
 public:
  explicit FfaLora(Params params) : adapters::Lora("ffa_lora", adapters::PairForm::FixedA, std::move(params)) {}
};

}  // namespace hansa::ffa_lora

HANSA_PLUGIN(org_hansa_ffa_lora, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component = plugin.add<ffa_lora::FfaLora, ffa_lora::Params>(
      "ffa_lora", "Low-rank pairs of which B alone trains: the mean of nodes' weights is exact.");
  component
      .doc(
          "FFA-LoRA (arXiv 2403.12313): A is drawn once from the run's seed, the same on every node, and stays; half "
          "the "
          "bytes of lora, and noise for privacy is not multiplied. Exports PEFT directories with both factors.")
      .traits(HANSA_TRAIT_RANK_AWARE);
  adapters::declare_pairs(component);
}
