#include "decoder.hpp"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <nn/layers.hpp>

namespace hansa::gpt2 {

namespace {

std::string layer_name(std::int64_t layer, std::string_view rest) {
  return fmt::format("transformer.h.{}.{}", layer, rest);
}

nn::DecoderPlan plan_of(const Config& c) {
  using Kind = Module::Kind;
  nn::DecoderPlan plan{.vocabulary = c.vocabulary,
                       .max_length = c.max_positions,
                       .layers = c.layers,
                       .heads = {.query = c.heads, .key_value = c.heads, .dim = c.width / c.heads}};
  auto& modules = plan.modules;
  auto linear = [&](std::string name, std::int64_t in, std::int64_t out) {
    modules.push_back({.name = std::move(name), .in = in, .out = out, .bias = true, .stored_transposed = true});
  };
  auto norm = [&](std::string name) {
    modules.push_back({.name = std::move(name), .kind = Kind::Norm, .in = c.width, .out = c.width, .bias = true});
  };
  modules.push_back({.name = "transformer.wte", .kind = Kind::Embedding, .in = c.vocabulary, .out = c.width});
  modules.push_back({.name = "transformer.wpe", .kind = Kind::Embedding, .in = c.max_positions, .out = c.width});
  for (std::int64_t i = 0; i < c.layers; ++i) {
    norm(layer_name(i, "ln_1"));
    linear(layer_name(i, "attn.c_attn"), c.width, 3 * c.width);
    linear(layer_name(i, "attn.c_proj"), c.width, c.width);
    norm(layer_name(i, "ln_2"));
    linear(layer_name(i, "mlp.c_fc"), c.width, c.inner);
    linear(layer_name(i, "mlp.c_proj"), c.inner, c.width);
  }
  norm("transformer.ln_f");
  plan.head = c.tied_head ? "transformer.wte" : "lm_head";
  if (!c.tied_head) modules.push_back({.name = "lm_head", .kind = Kind::Head, .in = c.width, .out = c.vocabulary});
  plan.optional_prefix = "transformer.";
  plan.unused = {"attn.bias", "attn.masked_bias"};  // the causal mask, stored by old files
  if (c.tied_head) plan.unused.push_back("lm_head.weight");
  // Layers that write into the residual stream start smaller, by the number of such writes.
  plan.initial_deviation = [c](const Module& module) {
    return module.name.ends_with("c_proj") ? c.initial_deviation / std::sqrt(2.0 * static_cast<double>(c.layers))
                                           : c.initial_deviation;
  };
  return plan;
}

}  // namespace

Decoder::Decoder(const Config& config) : config_(config), plan_(plan_of(config)) {}

void Decoder::bind(nn::Places& places) {
  tokens_ = &places.at("transformer.wte");
  positions_ = &places.at("transformer.wpe");
  final_norm_ = &places.at("transformer.ln_f");
  layers_.clear();
  for (std::int64_t i = 0; i < config_.layers; ++i) {
    auto at = [&](std::string_view rest) { return &places.at(layer_name(i, rest)); };
    layers_.push_back({.norm_1 = at("ln_1"),
                       .attention_in = at("attn.c_attn"),
                       .attention_out = at("attn.c_proj"),
                       .norm_2 = at("ln_2"),
                       .inner = at("mlp.c_fc"),
                       .outer = at("mlp.c_proj")});
  }
}

at::Tensor Decoder::forward(const nn::Pass& pass) {
  const auto visible =
      nn::causal_visibility(pass.batch, plan_.heads, pass.cache, pass.compute, pass.dropout, config_.attention_dropout);
  auto x = nn::embedding(*tokens_, pass.batch.tokens, pass.compute) +
           nn::embedding(*positions_, pass.batch.positions, pass.compute);
  x = pass.dropout.apply(x, config_.embedding_dropout);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const auto& layer = layers_[i];
    x = x + attend(layer, static_cast<std::int64_t>(i), nn::layer_norm(*layer.norm_1, x, config_.norm_epsilon), visible,
                   pass);
    x = x + feed_forward(layer, nn::layer_norm(*layer.norm_2, x, config_.norm_epsilon), pass);
  }
  return nn::layer_norm(*final_norm_, x, config_.norm_epsilon);
}

at::Tensor Decoder::attend(const Layer& layer, std::int64_t index, const at::Tensor& x, const nn::Visibility& visible,
                           const nn::Pass& pass) const {
  const auto& heads = plan_.heads;
  auto joined = nn::linear(*layer.attention_in, x, pass.dropout);
  auto part = [&](std::int64_t which) {
    return joined.narrow(-1, which * config_.width, config_.width)
        .reshape({x.size(0), x.size(1), heads.query, heads.dim});
  };
  double scale = config_.scale_attention ? 1 / std::sqrt(static_cast<double>(heads.dim)) : 1;
  if (config_.scale_by_inverse_layer) scale /= static_cast<double>(index + 1);
  auto seen = nn::attention(part(0), part(1), part(2), heads, visible, scale, config_.attention_dropout, pass.dropout,
                            pass.cache, index);
  return pass.dropout.apply(nn::linear(*layer.attention_out, seen, pass.dropout), config_.residual_dropout);
}

at::Tensor Decoder::feed_forward(const Layer& layer, const at::Tensor& x, const nn::Pass& pass) const {
  auto inner = nn::gelu_new(nn::linear(*layer.inner, x, pass.dropout));
  return pass.dropout.apply(nn::linear(*layer.outer, inner, pass.dropout), config_.residual_dropout);
}

}  // namespace hansa::gpt2
