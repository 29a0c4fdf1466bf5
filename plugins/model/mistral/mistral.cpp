// Model `mistral` (arXiv 2310.06825): Llama's blocks; a token sees a window of the last keys.
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>

#include <hansa/plugin.hpp>

namespace hansa::mistral {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "mistral");
  auto layout = nn::read_llama_layout(json, {.max_length = 131072, .key_value_heads = 8});
  json.choice("hidden_act", "silu", {"silu", "swish"});
  const auto rope = nn::read_rope(json, {.head_dim = layout.heads.dim, .max_positions = layout.max_length});
  layout.max_length = rope.longest(layout.max_length);
  const auto window = json.positive_or_null("sliding_window", 4096);  // null: none, as in v0.2 and v0.3
  json.finish();
  auto model = nn::build(layout, {rope});
  for (auto& block : model.spec.blocks) block.attention.window = window;
  return model;
}

struct Mistral final : nn::TransformerModel {
  explicit Mistral(Host& host) : TransformerModel("mistral", {"mistral"}, architecture, &host) {}
};

}  // namespace hansa::mistral

HANSA_PLUGIN(org_hansa_mistral, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<hansa::mistral::Mistral, hansa::NoParams>("mistral", "Mistral: Llama's blocks with a sliding window.")
      .doc("Reads Hugging Face directories with model_type \"mistral\" (arXiv 2310.06825).");
}
