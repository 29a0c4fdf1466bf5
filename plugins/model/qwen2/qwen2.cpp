// Model `qwen2`: Qwen2 and 2.5 (arXiv 2407.10671, 2412.15115): Llama's blocks with biases on queries, keys and values.
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::qwen2 {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "qwen2");
  auto layout = nn::read_llama_layout(json, {.max_length = 32768, .key_value_heads = 32});
  layout.query_bias = nn::Architecture::Bias::With;  // no key says so
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

struct Qwen2 final : nn::TransformerModel {
  explicit Qwen2(Host& host) : TransformerModel("qwen2", {"qwen2"}, architecture, &host) {}
};

}  // namespace hansa::qwen2

HANSA_PLUGIN(org_hansa_qwen2, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::qwen2::Qwen2, hansa::NoParams>(
          "qwen2", "Qwen2 and Qwen2.5: Llama's blocks with biases on queries, keys and values.")
      .doc("Reads Hugging Face directories with model_type \"qwen2\" (arXiv 2407.10671, 2412.15115).");
}
