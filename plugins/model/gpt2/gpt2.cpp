// Model `gpt2`: reads config.json and hands a Decoder to the shared CausalModel.
#include <hf/json_config.hpp>

#include <hansa/plugin.hpp>

#include "decoder.hpp"
#include "gpt2.hpp"

namespace hansa::gpt2 {

Config read_config(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "gpt2");
  Config c;
  c.width = json.positive("n_embd", 768);
  c.layers = json.positive("n_layer", 12);
  c.heads = json.positive("n_head", 12);
  if (c.width % c.heads != 0) json.refuse("n_head", "a divisor of n_embd");
  c.inner = json.positive("n_inner", 4 * c.width);
  c.vocabulary = json.positive("vocab_size");
  c.max_positions = json.positive("n_positions", 1024);
  c.norm_epsilon = json.real("layer_norm_epsilon", 1e-5);
  c.initial_deviation = json.real("initializer_range", 0.02);
  auto dropout = [&](std::string_view key) {
    const double p = json.real(key, 0.1);
    if (p < 0 || p >= 1) json.refuse(key, "0 to below 1");
    return p;
  };
  c.embedding_dropout = dropout("embd_pdrop");
  c.attention_dropout = dropout("attn_pdrop");
  c.residual_dropout = dropout("resid_pdrop");
  c.scale_attention = json.flag("scale_attn_weights", true);
  c.scale_by_inverse_layer = json.flag("scale_attn_by_inverse_layer_idx", false);
  c.tied_head = json.flag("tie_word_embeddings", true);
  json.choice("activation_function", "gelu_new", {"gelu_new", "gelu_pytorch_tanh"});
  json.only("add_cross_attention", {"false"});
  json.inert(
      {{"n_ctx", "an old twin of n_positions"},
       {"reorder_and_upcast_attn", "the same products, with a guard against fp16 overflow; we compute in fp32 or bf16"},
       {"summary_activation", "a classification head's"},
       {"summary_first_dropout", "a classification head's"},
       {"summary_proj_to_labels", "a classification head's"},
       {"summary_type", "a classification head's"},
       {"summary_use_proj", "a classification head's"}});
  json.finish();
  return c;
}

Gpt2::Gpt2()
    : CausalModel("gpt2", [](const std::filesystem::path& checkpoint) -> std::unique_ptr<nn::Decoder> {
        return std::make_unique<Decoder>(read_config(checkpoint));
      }) {}

}  // namespace hansa::gpt2

HANSA_PLUGIN(org_hansa_gpt2, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::gpt2::Gpt2, hansa::NoParams>("gpt2",
                                               "GPT-2: learned positions, LayerNorm, full attention, tanh-GELU.")
      .doc(
          "Reads Hugging Face directories with model_type \"gpt2\" (Radford et al. 2019). Dropout of 0.1 is the "
          "architecture's default and is honoured in training.");
}
