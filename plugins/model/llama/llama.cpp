// Model `llama` (arXiv 2302.13971, 2307.09288, 2407.21783): RMSNorm before each half of a block, rotary positions, grouped
// attention, SwiGLU. SmolLM and SmolLM2 are of this architecture.
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::llama {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "llama");
  auto layout = nn::read_llama_layout(json);
  layout.query_bias = layout.output_bias = nn::bias_of(json.flag("attention_bias", false));
  layout.mlp_bias = nn::bias_of(json.flag("mlp_bias", false));
  json.choice("hidden_act", "silu", {"silu", "swish"});
  const auto rope = nn::read_rope(json, {.head_dim = layout.heads.dim, .max_positions = layout.max_length});
  layout.max_length = rope.longest(layout.max_length);
  json.only("rope_interleaved", {"false"});
  json.inert({{"pretraining_tp", "how the original training split its products; the sums are the same"},
              {"is_llama_config", "a mark of the SmolLM exports"}});
  json.finish();
  return nn::build(layout, {rope});
}

struct Llama final : nn::TransformerModel {
  explicit Llama(Host& host) : TransformerModel("llama", {"llama"}, architecture, &host) {}
};

}  // namespace hansa::llama

HANSA_PLUGIN(org_hansa_llama, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::llama::Llama, hansa::NoParams>(
          "llama", "Llama architecture: RMSNorm, rotary positions, grouped attention, SwiGLU.")
      .doc("Reads Hugging Face directories with model_type \"llama\" (arXiv 2302.13971, 2407.21783).");
}
