// Model `qwen3` (arXiv 2505.09388): Llama's blocks with a norm over each query's and key's head before the turn.
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::qwen3 {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "qwen3");
  auto layout = nn::read_llama_layout(json, {.max_length = 32768, .key_value_heads = 32, .head_dim = 128});
  layout.head_norms = nn::LlamaLayout::HeadNorms::QueryAndKey;
  layout.query_bias = layout.output_bias = nn::bias_of(json.flag("attention_bias", false));
  json.choice("hidden_act", "silu", {"silu", "swish"});
  const auto rope = nn::read_rope(json, {.head_dim = layout.heads.dim, .max_positions = layout.max_length});
  layout.max_length = rope.longest(layout.max_length);
  const bool use_window = json.flag("use_sliding_window", false);
  const auto window = json.positive_or_null("sliding_window", 4096);
  const auto first = json.integer("max_window_layers", 28);
  const auto sliding =
      nn::read_sliding_layers(json, layout.layers, [&](std::int64_t i) { return use_window && i >= first; });
  json.only("use_mrope", {"false"});
  json.finish();
  auto model = nn::build(layout, {rope});
  if (use_window) nn::set_windows(model, sliding, window);
  return model;
}

struct Qwen3 final : nn::TransformerModel {
  explicit Qwen3(Host& host) : TransformerModel("qwen3", {"qwen3"}, architecture, &host) {}
};

}  // namespace hansa::qwen3

HANSA_PLUGIN(org_hansa_qwen3, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<hansa::qwen3::Qwen3, hansa::NoParams>("qwen3", "Qwen3: Llama's blocks with norms on queries and keys.")
      .doc("Reads Hugging Face directories with model_type \"qwen3\" (arXiv 2505.09388).");
}
