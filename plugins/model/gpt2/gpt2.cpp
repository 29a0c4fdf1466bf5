// Model `gpt2` (Radford et al. 2019): learned positions, LayerNorm before each half of a block, full attention, tanh-GELU.
#include <cmath>

#include <fmt/format.h>
#include <hf/json_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::gpt2 {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  using Bias = nn::Architecture::Bias;
  using Stored = nn::Architecture::Stored;
  auto json = hf::JsonConfig::read(checkpoint, "gpt2");
  nn::Architecture a;
  const auto width = json.positive("n_embd", 768);
  const auto heads = json.positive("n_head", 12);
  if (width % heads != 0) json.refuse("n_head", "a divisor of n_embd");
  const auto inner = json.positive("n_inner", 4 * width);
  a.plan.layers = json.positive("n_layer", 12);
  a.plan.heads = {.query = heads, .key_value = heads, .dim = width / heads};
  a.plan.vocabulary = json.positive("vocab_size");
  a.plan.max_length = json.positive("n_positions", 1024);
  const double epsilon = json.real("layer_norm_epsilon", 1e-5), deviation = json.real("initializer_range", 0.02);
  const double attention_dropout = json.fraction("attn_pdrop", 0.1),
               residual_dropout = json.fraction("resid_pdrop", 0.1);
  const bool scaled = json.flag("scale_attn_weights", true);
  const bool by_inverse_layer = json.flag("scale_attn_by_inverse_layer_idx", false);
  json.choice("activation_function", "gelu_new", {"gelu_new", "gelu_pytorch_tanh"});

  const auto norm = [&](std::string name) {
    return a.norm(nn::NormSpec::Form::Layer, std::move(name), width, epsilon);
  };
  a.spec.embedding = {.tokens = a.embedding("transformer.wte", a.plan.vocabulary, width),
                      .positions = a.embedding("transformer.wpe", a.plan.max_length, width),
                      .dropout = json.fraction("embd_pdrop", 0.1)};
  for (std::int64_t i = 0; i < a.plan.layers; ++i) {
    const auto in = [&](std::string_view rest) { return fmt::format("transformer.h.{}.{}", i, rest); };
    const auto conv1d = [&](std::string_view rest, std::int64_t from, std::int64_t to) {
      return a.linear(in(rest), from, to, Bias::With, Stored::InOut);
    };
    nn::BlockSpec block{.attention_norm = norm(in("ln_1")), .dropout = residual_dropout};
    block.attention = {.module = a.attention(in("attn"), a.plan.heads),
                       .inputs = nn::AttentionSpec::Inputs::Joined,
                       .query = conv1d("attn.c_attn", width, 3 * width),
                       .output = conv1d("attn.c_proj", width, width),
                       .heads = a.plan.heads,
                       .scale = (scaled ? 1 / std::sqrt(static_cast<double>(a.plan.heads.dim)) : 1) /
                                static_cast<double>(by_inverse_layer ? i + 1 : 1),
                       .dropout = attention_dropout};
    block.mlp_norm = norm(in("ln_2"));
    block.mlp = {.up = conv1d("mlp.c_fc", width, inner),
                 .down = conv1d("mlp.c_proj", inner, width),
                 .activation = nn::Activation::GeluTanh};
    a.spec.blocks.push_back(block);
  }
  a.spec.final_norm = norm("transformer.ln_f");
  if (json.flag("tie_word_embeddings", true))
    a.tied_head("lm_head");
  else
    a.own_head("lm_head", width);
  a.plan.optional_prefix = "transformer.";
  a.plan.unused.insert(a.plan.unused.end(), {"attn.bias", "attn.masked_bias"});  // the causal mask, stored by old files
  // Layers that write into the residual stream start smaller, by the number of such writes.
  a.plan.initial_deviation = [deviation, layers = a.plan.layers](const Module& module) {
    return module.name.ends_with("c_proj") ? deviation / std::sqrt(2.0 * static_cast<double>(layers)) : deviation;
  };

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
  return a;
}

struct Gpt2 final : nn::TransformerModel {
  explicit Gpt2(Host& host) : TransformerModel("gpt2", {"gpt2"}, architecture, &host) {}
};

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
