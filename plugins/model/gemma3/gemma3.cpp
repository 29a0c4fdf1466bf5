// Model `gemma3` (arXiv 2503.19786): Gemma 2's block with norms on queries and keys instead of soft caps; five of six layers
// have a window and a rotary base of their own. Of a model that also sees, the text half is read.
#include <cmath>
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::gemma3 {

namespace {

struct Ropes {
  nn::RopeSettings global, local;
};

// rope_parameters by kind of layer, or rope_theta, rope_local_base_freq and rope_scaling (of the global layers only).
Ropes read_ropes(hf::JsonConfig& json, const nn::RopeReading& reading) {
  const double theta = json.real("rope_theta", 1e6), local_theta = json.real("rope_local_base_freq", 1e4);
  auto* tables = json.object("rope_parameters");
  auto* scaling = json.object("rope_scaling");
  auto* global = tables ? tables->object("full_attention") : nullptr;
  auto* local = tables ? tables->object("sliding_attention") : nullptr;
  Ropes ropes{nn::read_rope_table(global, reading, theta), nn::read_rope_table(local, reading, local_theta)};
  if (scaling) ropes.global = nn::read_rope_table(scaling, reading, ropes.global.theta);
  return ropes;
}

nn::Architecture read_text(hf::JsonConfig& json) {
  auto layout = nn::read_llama_layout(json, {.width = 2304,
                                             .inner = 9216,
                                             .layers = 26,
                                             .vocabulary = 262208,
                                             .max_length = 131072,
                                             .query_heads = 8,
                                             .key_value_heads = 4,
                                             .head_dim = 256,
                                             .tied_head = true});
  layout.norm = nn::NormSpec::Form::RmsPlusOne;
  layout.norms = nn::LlamaLayout::Norms::Four;
  layout.head_norms = nn::LlamaLayout::HeadNorms::QueryAndKey;
  layout.query_bias = layout.output_bias = nn::bias_of(json.flag("attention_bias", false));
  layout.activation = nn::Activation::GeluTanh;
  json.choice("hidden_activation", "gelu_pytorch_tanh", {"gelu_pytorch_tanh", "gelu_new"});
  const auto ropes = read_ropes(json, {.head_dim = layout.heads.dim, .max_positions = layout.max_length});
  layout.max_length = ropes.global.longest(layout.max_length);
  const double scale = 1 / std::sqrt(json.real("query_pre_attn_scalar", 256));
  const double logit_cap = json.real("final_logit_softcapping", 0);
  const auto window = json.positive_or_null("sliding_window", 4096);
  const auto pattern = json.positive("sliding_window_pattern", 6);
  const auto sliding =
      nn::read_sliding_layers(json, layout.layers, [&](std::int64_t i) { return (i + 1) % pattern != 0; });
  json.only("attn_logit_softcapping", {"null"});  // Gemma 2's; Transformers reads it here and does not apply it
  json.only("use_bidirectional_attention", {"false"});
  json.inert({{"_sliding_window_pattern", "layer_types say it"},
              {"cache_implementation", "how Python keeps keys and values"}});

  auto model = nn::build(layout, {ropes.global, ropes.local});
  model.spec.embedding.scale = std::sqrt(static_cast<double>(layout.width));
  model.plan.logit_soft_cap = logit_cap;
  for (std::size_t i = 0; i < sliding.size(); ++i) {
    auto& attention = model.spec.blocks[i].attention;
    attention.scale = scale;
    attention.rope = sliding[i] ? 1 : 0;
  }
  nn::set_windows(model, sliding, window);
  model.plan.other_prefixes = {"language_model.model.", "model.language_model."};
  return model;
}

}  // namespace

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "gemma3");
  auto* inner = json.whole("text_config");
  auto model = read_text(inner ? *inner : json);
  if (inner) {
    model.plan.unused_parts = {"vision_tower.", "model.vision_tower.", "multi_modal_projector.",
                               "model.multi_modal_projector."};
    json.flag("tie_word_embeddings", true);
    json.inert({{"vision_config", "the half that sees is not read"},
                {"mm_tokens_per_image", "of the half that sees"},
                {"image_token_index", "of the half that sees"},
                {"image_token_id", "of the half that sees"},
                {"boi_token_index", "of the half that sees"},
                {"boi_token_id", "of the half that sees"},
                {"eoi_token_index", "of the half that sees"},
                {"eoi_token_id", "of the half that sees"}});
  }
  json.finish();
  return model;
}

struct Gemma3 final : nn::TransformerModel {
  explicit Gemma3(Host& host) : TransformerModel("gemma3", {"gemma3_text", "gemma3"}, architecture, &host) {}
};

}  // namespace hansa::gemma3

HANSA_PLUGIN(org_hansa_gemma3, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::gemma3::Gemma3, hansa::NoParams>(
          "gemma3", "Gemma 3 (its text half): norms on queries and keys, windows in five of six layers.")
      .doc("Reads Hugging Face directories with model_type \"gemma3_text\" or \"gemma3\" (arXiv 2503.19786).");
}
