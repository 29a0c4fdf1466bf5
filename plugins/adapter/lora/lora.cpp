#include <adapters/declare.hpp>

namespace hansa::lora {

using Params = adapters::LoraParams;

class Lora final : public adapters::Lora {
 public:
  explicit Lora(Params params) : adapters::Lora("lora", adapters::PairForm::Plain, std::move(params)) {}
};

}  // namespace hansa::lora

HANSA_PLUGIN(org_hansa_lora, "0.1.0") {
  using namespace hansa;
  using lora::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component =
      plugin.add<lora::Lora, Params>("lora", "Low-rank pairs beside linear modules; the base stays as it is.");
  component
      .doc(
          "y += scale * B A dropout(x), scale = alpha / r (arXiv 2106.09685), or alpha / sqrt(r) with rslora (arXiv "
          "2312.03732). A rule may add to the frozen weights: channel `residual`. Exports and imports PEFT "
          "directories.")
      .groups("lora")
      .traits(HANSA_TRAIT_RANK_AWARE);
  adapters::declare_pairs(component)
      .param(&Params::start, "init",
             "default: A uniform, B zero. pissa: the largest part of the weight (arXiv 2404.02948). orthogonal: "
             "neither is "
             "zero, their product is; r must be even.",
             choices({"default", "pissa", "orthogonal"}))
      .param(&Params::b_rate, "lora_plus_ratio",
             "Learning rate of B as a multiple of that of A (LoRA+, arXiv 2402.12354, which takes 16).", more_than(0))
      .check([](const Params& p, Problems& problems) {
        if (p.start == adapters::PairStart::Orthogonal && p.r % 2 != 0)
          problems.add("r", "init = \"orthogonal\" shares the rank between A and B, so it must be even",
                       "choose an even r, or init = \"default\"");
      });
}
