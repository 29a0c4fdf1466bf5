// Model `llama`: reads config.json and hands a Decoder to the shared CausalModel.
#include <hf/json_config.hpp>
#include <nn/rope_config.hpp>

#include <hansa/plugin.hpp>

#include "decoder.hpp"
#include "llama.hpp"

namespace hansa::llama {

Config read_config(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "llama");
  Config c;
  c.width = json.positive("hidden_size");
  c.inner = json.positive("intermediate_size");
  c.layers = json.positive("num_hidden_layers");
  c.vocabulary = json.positive("vocab_size");
  c.max_positions = json.positive("max_position_embeddings", 2048);
  c.heads.query = json.positive("num_attention_heads");
  c.heads.key_value = json.positive("num_key_value_heads", c.heads.query);
  if (c.heads.query % c.heads.key_value != 0) json.refuse("num_key_value_heads", "a divisor of num_attention_heads");
  if (!json.has("head_dim") && c.width % c.heads.query != 0)
    json.refuse("num_attention_heads", "a divisor of hidden_size, or a head_dim beside it");
  c.heads.dim = json.positive("head_dim", c.width / c.heads.query);
  if (c.heads.dim % 2 != 0) json.refuse(json.has("head_dim") ? "head_dim" : "hidden_size", "heads of an even width");
  c.rope = nn::read_rope(json, c.heads.dim, 10000);
  c.norm_epsilon = json.real("rms_norm_eps", 1e-6);
  c.initial_deviation = json.real("initializer_range", 0.02);
  c.attention_dropout = json.real("attention_dropout", 0);
  if (c.attention_dropout < 0 || c.attention_dropout >= 1) json.refuse("attention_dropout", "0 to below 1");
  c.attention_bias = json.flag("attention_bias", false);
  c.mlp_bias = json.flag("mlp_bias", false);
  c.tied_head = json.flag("tie_word_embeddings", false);
  json.choice("hidden_act", "silu", {"silu", "swish"});
  json.only("rope_interleaved", {"false"});
  json.inert({{"pretraining_tp", "how the original training split its products; the sums are the same"},
              {"is_llama_config", "a mark of the SmolLM exports"}});
  json.finish();
  return c;
}

Llama::Llama()
    : CausalModel("llama", [](const std::filesystem::path& checkpoint) -> std::unique_ptr<nn::Decoder> {
        return std::make_unique<Decoder>(read_config(checkpoint));
      }) {}

}  // namespace hansa::llama

HANSA_PLUGIN(org_hansa_llama, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::llama::Llama, hansa::NoParams>(
          "llama", "Llama architecture: RMSNorm, rotary positions, grouped attention, SwiGLU.")
      .doc("Reads Hugging Face directories with model_type \"llama\" (arXiv 2302.13971, 2407.21783).");
}
