#include "decoder.hpp"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <nn/layers.hpp>

namespace hansa::llama {

namespace {

std::string layer_name(std::int64_t layer, std::string_view rest) {
  return fmt::format("model.layers.{}.{}", layer, rest);
}

nn::DecoderPlan plan_of(const Config& c) {
  using Kind = Module::Kind;
  nn::DecoderPlan plan{.vocabulary = c.vocabulary, .max_length = c.max_positions, .layers = c.layers, .heads = c.heads};
  auto& modules = plan.modules;
  auto linear = [&](std::string name, std::int64_t in, std::int64_t out, bool bias) {
    modules.push_back({.name = std::move(name), .in = in, .out = out, .bias = bias});
  };
  auto norm = [&](std::string name) {
    modules.push_back({.name = std::move(name), .kind = Kind::Norm, .in = c.width, .out = c.width});
  };
  const auto q_width = c.heads.query * c.heads.dim, kv_width = c.heads.key_value * c.heads.dim;
  modules.push_back({.name = "model.embed_tokens", .kind = Kind::Embedding, .in = c.vocabulary, .out = c.width});
  for (std::int64_t i = 0; i < c.layers; ++i) {
    norm(layer_name(i, "input_layernorm"));
    linear(layer_name(i, "self_attn.q_proj"), c.width, q_width, c.attention_bias);
    linear(layer_name(i, "self_attn.k_proj"), c.width, kv_width, c.attention_bias);
    linear(layer_name(i, "self_attn.v_proj"), c.width, kv_width, c.attention_bias);
    linear(layer_name(i, "self_attn.o_proj"), q_width, c.width, c.attention_bias);
    norm(layer_name(i, "post_attention_layernorm"));
    linear(layer_name(i, "mlp.gate_proj"), c.width, c.inner, c.mlp_bias);
    linear(layer_name(i, "mlp.up_proj"), c.width, c.inner, c.mlp_bias);
    linear(layer_name(i, "mlp.down_proj"), c.inner, c.width, c.mlp_bias);
  }
  norm("model.norm");
  plan.head = c.tied_head ? "model.embed_tokens" : "lm_head";
  if (!c.tied_head) modules.push_back({.name = "lm_head", .kind = Kind::Head, .in = c.width, .out = c.vocabulary});
  plan.optional_prefix = "model.";
  plan.unused = {"rotary_emb.inv_freq"};  // recomputed from the config
  if (c.tied_head) plan.unused.push_back("lm_head.weight");
  plan.initial_deviation = [deviation = c.initial_deviation](const Module&) { return deviation; };
  return plan;
}

}  // namespace

Decoder::Decoder(const Config& config) : config_(config), plan_(plan_of(config)), rope_(config.rope) {}

void Decoder::bind(nn::Places& places) {
  embedding_ = &places.at("model.embed_tokens");
  final_norm_ = &places.at("model.norm");
  layers_.clear();
  for (std::int64_t i = 0; i < config_.layers; ++i) {
    auto at = [&](std::string_view rest) { return &places.at(layer_name(i, rest)); };
    layers_.push_back({.input_norm = at("input_layernorm"),
                       .q = at("self_attn.q_proj"),
                       .k = at("self_attn.k_proj"),
                       .v = at("self_attn.v_proj"),
                       .o = at("self_attn.o_proj"),
                       .post_norm = at("post_attention_layernorm"),
                       .gate = at("mlp.gate_proj"),
                       .up = at("mlp.up_proj"),
                       .down = at("mlp.down_proj")});
  }
}

at::Tensor Decoder::forward(const nn::Pass& pass) {
  const auto rotation = rope_.rows(pass.batch.positions, pass.compute);
  const auto visible = nn::causal_visibility(pass.batch, config_.heads, pass.cache, pass.compute, pass.dropout,
                                             config_.attention_dropout);
  auto x = nn::embedding(*embedding_, pass.batch.tokens, pass.compute);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const auto& layer = layers_[i];
    x = x + attend(layer, static_cast<std::int64_t>(i), nn::rms_norm(*layer.input_norm, x, config_.norm_epsilon),
                   rotation, visible, pass);
    x = x + feed_forward(layer, nn::rms_norm(*layer.post_norm, x, config_.norm_epsilon), pass);
  }
  return nn::rms_norm(*final_norm_, x, config_.norm_epsilon);
}

at::Tensor Decoder::attend(const Layer& layer, std::int64_t index, const at::Tensor& x, const nn::Rope::Rows& rotation,
                           const nn::Visibility& visible, const nn::Pass& pass) const {
  const auto& heads = config_.heads;
  auto project = [&](const nn::Place& place, std::int64_t count) {
    return nn::linear(place, x, pass.dropout).view({x.size(0), x.size(1), count, heads.dim});
  };
  auto q = nn::Rope::rotate(project(*layer.q, heads.query), rotation);
  auto k = nn::Rope::rotate(project(*layer.k, heads.key_value), rotation);
  auto v = project(*layer.v, heads.key_value);
  const double scale = 1 / std::sqrt(static_cast<double>(heads.dim));
  auto seen = nn::attention(q, k, v, heads, visible, scale, config_.attention_dropout, pass.dropout, pass.cache, index);
  return nn::linear(*layer.o, seen, pass.dropout);
}

at::Tensor Decoder::feed_forward(const Layer& layer, const at::Tensor& x, const nn::Pass& pass) {
  auto gate = nn::linear(*layer.gate, x, pass.dropout);
  auto up = nn::linear(*layer.up, x, pass.dropout);
  return nn::linear(*layer.down, nn::swiglu(gate, up), pass.dropout);
}

}  // namespace hansa::llama
