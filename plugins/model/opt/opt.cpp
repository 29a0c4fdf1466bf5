// Model `opt` (arXiv 2205.01068): learned positions that start at row 2, LayerNorm, ReLU. The 350M model norms after each half
// of a block, and its embedding is narrower than its blocks.
#include <cmath>
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/transformer.hpp>

#include <fmt/format.h>

#include <hansa/plugin.hpp>

namespace hansa::opt {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  using Bias = nn::Architecture::Bias;
  auto json = hf::JsonConfig::read(checkpoint, "opt");
  nn::Architecture a;
  const auto width = json.positive("hidden_size"), inner = json.positive("ffn_dim", 3072);
  const auto heads = json.positive("num_attention_heads");
  if (width % heads != 0) json.refuse("num_attention_heads", "a divisor of hidden_size");
  const auto table_width = json.positive("word_embed_proj_dim", width);
  a.plan.layers = json.positive("num_hidden_layers");
  a.plan.heads = {.query = heads, .key_value = heads, .dim = width / heads};
  a.plan.vocabulary = json.positive("vocab_size");
  a.plan.max_length = json.positive("max_position_embeddings", 2048);
  const double deviation = json.real("init_std", 0.02);
  const double dropout = json.fraction("dropout", 0.1), attention_dropout = json.fraction("attention_dropout", 0);
  const auto bias = nn::bias_of(json.flag("enable_bias", true));
  const bool norm_first = json.flag("do_layer_norm_before", true);
  const bool no_final_norm = json.flag("_remove_final_layer_norm", false);
  const bool norms_have_weights = json.flag("layer_norm_elementwise_affine", true);
  const auto act = json.choice("activation_function", "relu", {"relu", "gelu"});
  json.only("layerdrop", {"0.0", "0"});
  json.only("activation_dropout", {"0.0", "0"});

  constexpr double kEpsilon = 1e-5;
  constexpr std::int64_t kFirstPosition = 2;
  const auto norm = [&](std::string name) {
    if (norms_have_weights) return a.norm(nn::NormSpec::Form::Layer, std::move(name), width, kEpsilon);
    return nn::NormSpec{.form = nn::NormSpec::Form::Layer, .epsilon = kEpsilon};
  };
  a.spec.embedding.tokens = a.embedding("model.decoder.embed_tokens", a.plan.vocabulary, table_width);
  a.spec.embedding.positions = a.embedding("model.decoder.embed_positions", a.plan.max_length + kFirstPosition, width);
  a.spec.embedding.position_offset = kFirstPosition;
  if (table_width != width) {
    a.spec.embedding.project = a.linear("model.decoder.project_in", table_width, width, Bias::Without);
    a.spec.project = a.linear("model.decoder.project_out", width, table_width, Bias::Without);
  }
  for (std::int64_t i = 0; i < a.plan.layers; ++i) {
    const auto in = [&](std::string_view rest) { return fmt::format("model.decoder.layers.{}.{}", i, rest); };
    const auto square = [&](std::string_view rest) { return a.linear(in(rest), width, width, bias); };
    nn::BlockSpec block{.order = norm_first ? nn::BlockSpec::Order::NormFirst : nn::BlockSpec::Order::NormLast,
                        .attention_norm = norm(in("self_attn_layer_norm")),
                        .mlp_norm = norm(in("final_layer_norm")),
                        .dropout = dropout};
    block.attention = {.module = a.attention(in("self_attn"), a.plan.heads),
                       .query = square("self_attn.q_proj"),
                       .key = square("self_attn.k_proj"),
                       .value = square("self_attn.v_proj"),
                       .output = square("self_attn.out_proj"),
                       .heads = a.plan.heads,
                       .scale = 1 / std::sqrt(static_cast<double>(a.plan.heads.dim)),
                       .dropout = attention_dropout};
    block.mlp = {.up = a.linear(in("fc1"), width, inner, bias),
                 .down = a.linear(in("fc2"), inner, width, bias),
                 .activation = act == "relu" ? nn::Activation::Relu : nn::Activation::Gelu};
    a.spec.blocks.push_back(block);
  }
  if (norm_first && !no_final_norm) a.spec.final_norm = norm("model.decoder.final_layer_norm");
  if (json.flag("tie_word_embeddings", true))
    a.tied_head("lm_head");
  else
    a.own_head("lm_head", table_width);
  a.plan.optional_prefix = "model.";
  a.plan.initial_deviation = [deviation](const Module&) { return deviation; };
  json.inert({{"initializer_range", "init_std is OPT's"}});
  json.finish();
  return a;
}

struct Opt final : nn::TransformerModel {
  explicit Opt(Host& host) : TransformerModel("opt", {"opt"}, architecture, &host) {}
};

}  // namespace hansa::opt

HANSA_PLUGIN(org_hansa_opt, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<hansa::opt::Opt, hansa::NoParams>("opt", "OPT: learned positions, LayerNorm, ReLU.")
      .doc(
          "Reads Hugging Face directories with model_type \"opt\" (arXiv 2205.01068). Dropout of 0.1 is the default "
          "and is honoured in training.");
}
