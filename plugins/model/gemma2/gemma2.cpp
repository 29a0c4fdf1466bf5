// Model `gemma2` (arXiv 2408.00118): four norms a block that multiply with 1 + weight, GELU gates, soft caps on scores and
// logits, every other layer with a window, embeddings scaled by the root of the width.
#include <cmath>
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::gemma2 {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "gemma2");
  auto layout =
      nn::read_llama_layout(json, {.max_length = 8192, .key_value_heads = 4, .head_dim = 256, .tied_head = true});
  layout.norm = nn::NormSpec::Form::RmsPlusOne;
  layout.norms = nn::LlamaLayout::Norms::Four;
  layout.query_bias = layout.output_bias = nn::bias_of(json.flag("attention_bias", false));
  layout.activation = nn::Activation::GeluTanh;
  json.choice("hidden_activation", "gelu_pytorch_tanh", {"gelu_pytorch_tanh", "gelu_new"});
  const auto rope = nn::read_rope(json, {.head_dim = layout.heads.dim, .max_positions = layout.max_length});
  layout.max_length = rope.longest(layout.max_length);
  const double scale = 1 / std::sqrt(json.real("query_pre_attn_scalar", 256));
  const double score_cap = json.real_or_null("attn_logit_softcapping", 50).value_or(0);
  const double logit_cap = json.real_or_null("final_logit_softcapping", 30).value_or(0);
  const auto window = json.positive_or_null("sliding_window", 4096);
  const auto sliding = nn::read_sliding_layers(json, layout.layers, [](std::int64_t i) { return i % 2 == 0; });
  json.only("use_bidirectional_attention", {"false"});
  json.inert({{"hidden_act", "the older name, which hidden_activation replaced"},
              {"sliding_window_size", "a twin of sliding_window in the hub's files"},
              {"cache_implementation", "how Python keeps keys and values"}});
  json.finish();

  auto model = nn::build(layout, {rope});
  model.spec.embedding.scale = std::sqrt(static_cast<double>(layout.width));
  model.plan.logit_soft_cap = logit_cap;
  for (auto& block : model.spec.blocks) {
    block.attention.scale = scale;
    block.attention.soft_cap = score_cap;
  }
  nn::set_windows(model, sliding, window);
  return model;
}

struct Gemma2 final : nn::TransformerModel {
  explicit Gemma2(Host& host) : TransformerModel("gemma2", {"gemma2"}, architecture, &host) {}
};

}  // namespace hansa::gemma2

HANSA_PLUGIN(org_hansa_gemma2, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::gemma2::Gemma2, hansa::NoParams>(
          "gemma2", "Gemma 2: four norms a block, soft caps, windows in every other layer.")
      .doc("Reads Hugging Face directories with model_type \"gemma2\" (arXiv 2408.00118).");
}
