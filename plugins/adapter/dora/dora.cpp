#include <adapters/declare.hpp>

namespace hansa::dora {

using Params = adapters::LoraParams;

class Dora final : public adapters::Lora {
 public:
  explicit Dora(Params params) : adapters::Lora("dora", adapters::PairForm::Dora, std::move(params)) {}
};

}  // namespace hansa::dora

HANSA_PLUGIN(org_hansa_dora, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component = plugin.add<dora::Dora, dora::Params>(
      "dora", "Low-rank pairs that turn each row of a weight, and a trained length for each row.");
  component
      .doc(
          "W' = m * (W + scale * B A) / |W + scale * B A|, by rows (arXiv 2402.09353); the norm is a constant in the "
          "backward pass (their section 4.3). m starts as the norms of W. Exports and imports PEFT directories.")
      .groups("dora")
      .traits(HANSA_TRAIT_RANK_AWARE);
  adapters::declare_pairs(component);
}
