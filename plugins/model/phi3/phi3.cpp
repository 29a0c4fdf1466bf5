// Model `phi3`: Phi-3 (arXiv 2404.14219) and Phi-4-mini (arXiv 2503.01743): Llama's block with queries, keys and values in one
// module, gate and up in another; longrope, which Phi-4-mini applies to part of each head.
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::phi3 {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "phi3");
  auto layout = nn::read_llama_layout(json, {.max_length = 4096, .epsilon = 1e-5});
  layout.projections = nn::LlamaLayout::Projections::Joined;
  json.choice("hidden_act", "silu", {"silu", "swish"});
  const auto rope =
      nn::read_rope(json, {.head_dim = layout.heads.dim,
                           .max_positions = layout.max_length,
                           .part = 1.0,
                           .types = nn::RopeReading::Types::LongRope,
                           .original_positions = json.positive("original_max_position_embeddings", 4096)});
  const auto window = json.integer("sliding_window");
  if (window && *window < 1) json.refuse("sliding_window", "null or at least 1");
  const double dropout = json.fraction("resid_pdrop", 0);
  json.only("embd_pdrop", {"0.0", "0"});
  json.only("attention_bias", {"false"});
  json.only("mlp_bias", {"false"});
  json.only("lm_head_bias", {"false"});
  json.only("full_attn_mod", {"1"});
  json.only("interpolate_factor", {"1"});
  json.inert({{"auto_map", "names of Python files"}});
  json.finish();
  auto model = nn::build(layout, {rope});
  for (auto& block : model.spec.blocks) {
    block.attention.window = window;
    block.dropout = dropout;
  }
  return model;
}

struct Phi3 final : nn::TransformerModel {
  explicit Phi3(Host& host) : TransformerModel("phi3", {"phi3"}, architecture, &host) {}
};

}  // namespace hansa::phi3

HANSA_PLUGIN(org_hansa_phi3, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::phi3::Phi3, hansa::NoParams>(
          "phi3", "Phi-3 and Phi-4-mini: Llama's blocks with joined projections and longrope.")
      .doc("Reads Hugging Face directories with model_type \"phi3\" (arXiv 2404.14219, 2503.01743).");
}
