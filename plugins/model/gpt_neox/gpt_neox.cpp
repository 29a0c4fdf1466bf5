// Model `gpt_neox` (arXiv 2204.06745), the architecture of Pythia (arXiv 2304.01373): attention and MLP side by side, LayerNorm,
// a quarter of each head turned, exact GELU, one module for queries, keys and values, interleaved head by head.
#include <cmath>
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <fmt/format.h>

#include <hansa/plugin.hpp>

namespace hansa::gpt_neox {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "gpt_neox");
  nn::Architecture a;
  const auto width = json.positive("hidden_size"), inner = json.positive("intermediate_size");
  const auto heads = json.positive("num_attention_heads");
  if (width % heads != 0) json.refuse("num_attention_heads", "a divisor of hidden_size");
  a.plan.layers = json.positive("num_hidden_layers");
  a.plan.heads = {.query = heads, .key_value = heads, .dim = width / heads};
  a.plan.vocabulary = json.positive("vocab_size");
  a.plan.max_length = json.positive("max_position_embeddings", 2048);
  const double epsilon = json.real("layer_norm_eps", 1e-5), deviation = json.real("initializer_range", 0.02);
  const double attention_dropout = json.fraction("attention_dropout", 0), dropout = json.fraction("hidden_dropout", 0);
  const auto attention_bias = nn::bias_of(json.flag("attention_bias", true));
  const bool side_by_side = json.flag("use_parallel_residual", true);
  json.choice("hidden_act", "gelu", {"gelu"});
  const auto rope = nn::read_rope(json, {.head_dim = a.plan.heads.dim,
                                         .max_positions = a.plan.max_length,
                                         .theta_key = "rotary_emb_base",
                                         .part_key = "rotary_pct",
                                         .part = 0.25});
  a.plan.max_length = rope.longest(a.plan.max_length);
  a.spec.ropes = {rope};

  const auto norm = [&](std::string name) {
    return a.norm(nn::NormSpec::Form::Layer, std::move(name), width, epsilon);
  };
  a.spec.embedding = {.tokens = a.embedding("gpt_neox.embed_in", a.plan.vocabulary, width), .dropout = dropout};
  for (std::int64_t i = 0; i < a.plan.layers; ++i) {
    const auto in = [&](std::string_view rest) { return fmt::format("gpt_neox.layers.{}.{}", i, rest); };
    nn::BlockSpec block{.order = side_by_side ? nn::BlockSpec::Order::Parallel : nn::BlockSpec::Order::NormFirst,
                        .attention_norm = norm(in("input_layernorm")),
                        .mlp_norm = norm(in("post_attention_layernorm")),
                        .dropout = dropout};
    block.attention = {.module = a.attention(in("attention"), a.plan.heads),
                       .inputs = nn::AttentionSpec::Inputs::PerHead,
                       .query = a.linear(in("attention.query_key_value"), width, 3 * width, attention_bias),
                       .output = a.linear(in("attention.dense"), width, width, attention_bias),
                       .heads = a.plan.heads,
                       .scale = 1 / std::sqrt(static_cast<double>(a.plan.heads.dim)),
                       .rope = 0,
                       .dropout = attention_dropout};
    block.mlp = {.up = a.linear(in("mlp.dense_h_to_4h"), width, inner, nn::Architecture::Bias::With),
                 .down = a.linear(in("mlp.dense_4h_to_h"), inner, width, nn::Architecture::Bias::With),
                 .activation = nn::Activation::Gelu};
    a.spec.blocks.push_back(block);
  }
  a.spec.final_norm = norm("gpt_neox.final_layer_norm");
  if (json.flag("tie_word_embeddings", false))
    a.tied_head("embed_out");
  else
    a.own_head("embed_out", width);
  a.plan.optional_prefix = "gpt_neox.";
  // The causal mask and the rotary frequencies, stored by old files.
  a.plan.unused.insert(a.plan.unused.end(), {"attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"});
  a.plan.initial_deviation = [deviation](const Module&) { return deviation; };
  json.inert({{"classifier_dropout", "a classification head's"}});
  json.finish();
  return a;
}

struct GptNeoX final : nn::TransformerModel {
  explicit GptNeoX(Host& host) : TransformerModel("gpt_neox", {"gpt_neox"}, architecture, &host) {}
};

}  // namespace hansa::gpt_neox

HANSA_PLUGIN(org_hansa_gpt_neox, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::gpt_neox::GptNeoX, hansa::NoParams>(
          "gpt_neox", "GPT-NeoX and Pythia: attention and MLP side by side, partly rotary heads.")
      .doc("Reads Hugging Face directories with model_type \"gpt_neox\" (arXiv 2204.06745, 2304.01373).");
}
