#include "nn/llama_layout.hpp"

#include <cmath>

#include <fmt/format.h>

#include "hf/json_config.hpp"

namespace hansa::nn {

Architecture::Bias bias_of(bool there) { return there ? Architecture::Bias::With : Architecture::Bias::Without; }

LlamaLayout read_llama_layout(hf::JsonConfig& json, const LlamaDefaults& defaults) {
  const auto size = [&](std::string_view key, std::int64_t when_absent) {
    return when_absent == 0 ? json.positive(key) : json.positive(key, when_absent);
  };
  LlamaLayout l;
  l.width = size("hidden_size", defaults.width);
  l.inner = size("intermediate_size", defaults.inner);
  l.layers = size("num_hidden_layers", defaults.layers);
  l.vocabulary = size("vocab_size", defaults.vocabulary);
  l.max_length = size("max_position_embeddings", defaults.max_length);
  auto& heads = l.heads;
  heads.query = size("num_attention_heads", defaults.query_heads);
  heads.key_value = json.positive_or_null("num_key_value_heads",
                                          defaults.key_value_heads == 0 ? heads.query : defaults.key_value_heads)
                        .value_or(heads.query);
  if (heads.query % heads.key_value != 0) json.refuse("num_key_value_heads", "a divisor of num_attention_heads");
  if (!json.has("head_dim") && defaults.head_dim == 0 && l.width % heads.query != 0)
    json.refuse("num_attention_heads", "a divisor of hidden_size, or a head_dim beside it");
  heads.dim = json.positive("head_dim", defaults.head_dim == 0 ? l.width / heads.query : defaults.head_dim);
  if (heads.dim % 2 != 0) json.refuse(json.has("head_dim") ? "head_dim" : "hidden_size", "heads of an even width");
  l.epsilon = json.real("rms_norm_eps", defaults.epsilon);
  l.deviation = json.real("initializer_range", 0.02);
  l.attention_dropout = json.fraction("attention_dropout", 0);
  l.tied_head = json.flag("tie_word_embeddings", defaults.tied_head);
  return l;
}

std::vector<bool> read_sliding_layers(hf::JsonConfig& json, std::int64_t layers,
                                      const std::function<bool(std::int64_t)>& rule) {
  std::vector<bool> sliding;
  const auto types = json.texts("layer_types");
  if (types && static_cast<std::int64_t>(types->size()) != layers)
    json.refuse("layer_types", "one entry for each of num_hidden_layers");
  for (std::int64_t i = 0; i < layers; ++i) {
    const auto type = types ? types->at(static_cast<std::size_t>(i)) : std::string();
    if (types && type != "full_attention" && type != "sliding_attention")
      json.refuse("layer_types", "full_attention, sliding_attention");
    sliding.push_back(types ? type == "sliding_attention" : rule(i));
  }
  return sliding;
}

void set_windows(Architecture& a, const std::vector<bool>& sliding, std::optional<std::int64_t> window) {
  for (std::size_t i = 0; i < a.spec.blocks.size(); ++i)
    if (sliding[i]) a.spec.blocks[i].attention.window = window;
}

namespace {

BlockSpec block_of(Architecture& a, const LlamaLayout& l, std::int64_t index) {
  const auto in = [&](std::string_view rest) { return fmt::format("model.layers.{}.{}", index, rest); };
  const auto norm = [&](std::string_view name) { return a.norm(l.norm, in(name), l.width, l.epsilon); };
  const auto head_norm = [&](std::string_view name) { return a.norm(l.norm, in(name), l.heads.dim, l.epsilon); };
  const auto q = l.heads.query_width(), kv = l.heads.key_value_width();

  BlockSpec block{.attention_norm = norm("input_layernorm")};
  auto& attention = block.attention;
  attention.module = a.attention(in("self_attn"), l.heads);
  attention.heads = l.heads;
  attention.scale = 1 / std::sqrt(static_cast<double>(l.heads.dim));
  attention.rope = 0;
  attention.dropout = l.attention_dropout;
  if (l.projections == LlamaLayout::Projections::Joined) {
    attention.inputs = AttentionSpec::Inputs::Joined;
    attention.query = a.linear(in("self_attn.qkv_proj"), l.width, q + 2 * kv, l.query_bias);
  } else {
    attention.query = a.linear(in("self_attn.q_proj"), l.width, q, l.query_bias);
    attention.key = a.linear(in("self_attn.k_proj"), l.width, kv, l.query_bias);
    attention.value = a.linear(in("self_attn.v_proj"), l.width, kv, l.query_bias);
  }
  attention.output = a.linear(in("self_attn.o_proj"), q, l.width, l.output_bias);
  if (l.head_norms == LlamaLayout::HeadNorms::QueryAndKey) {
    attention.query_norm = head_norm("self_attn.q_norm");
    attention.key_norm = head_norm("self_attn.k_norm");
  }

  if (l.norms == LlamaLayout::Norms::Four) {
    block.after_attention = norm("post_attention_layernorm");
    block.mlp_norm = norm("pre_feedforward_layernorm");
    block.after_mlp = norm("post_feedforward_layernorm");
  } else {
    block.mlp_norm = norm("post_attention_layernorm");
  }

  auto& mlp = block.mlp;
  mlp.activation = l.activation;
  mlp.joined = l.projections == LlamaLayout::Projections::Joined;
  if (mlp.joined) {
    mlp.up = a.linear(in("mlp.gate_up_proj"), l.width, 2 * l.inner, l.mlp_bias);
  } else {
    mlp.gate = a.linear(in("mlp.gate_proj"), l.width, l.inner, l.mlp_bias);
    mlp.up = a.linear(in("mlp.up_proj"), l.width, l.inner, l.mlp_bias);
  }
  mlp.down = a.linear(in("mlp.down_proj"), l.inner, l.width, l.mlp_bias);
  return block;
}

}  // namespace

Architecture build(const LlamaLayout& l, std::vector<RopeSettings> ropes) {
  Architecture a;
  a.plan.vocabulary = l.vocabulary;
  a.plan.max_length = l.max_length;
  a.plan.layers = l.layers;
  a.plan.heads = l.heads;
  a.plan.optional_prefix = "model.";
  a.plan.unused = {"rotary_emb.inv_freq"};  // computed from the config
  if (l.norm == NormSpec::Form::RmsPlusOne) a.plan.initial_norm = 0;
  a.plan.initial_deviation = [deviation = l.deviation](const Module&) { return deviation; };
  a.spec.ropes = std::move(ropes);
  a.spec.embedding.tokens = a.embedding("model.embed_tokens", l.vocabulary, l.width);
  for (std::int64_t i = 0; i < l.layers; ++i) a.spec.blocks.push_back(block_of(a, l, i));
  a.spec.final_norm = a.norm(l.norm, "model.norm", l.width, l.epsilon);
  if (l.tied_head)
    a.tied_head("lm_head");
  else
    a.own_head("lm_head", l.width);
  return a;
}

}  // namespace hansa::nn
