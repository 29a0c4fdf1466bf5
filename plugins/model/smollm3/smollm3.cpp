// Model `smollm3`: Llama's blocks, but only three of four layers turn queries and keys (NoPE, arXiv 2501.18795); the head is
// tied.
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>
#include <nn/transformer.hpp>
#include <vector>

#include <hansa/plugin.hpp>

namespace hansa::smollm3 {

nn::Architecture architecture(const std::filesystem::path& checkpoint) {
  auto json = hf::JsonConfig::read(checkpoint, "smollm3");
  auto layout = nn::read_llama_layout(json, {.max_length = 32768, .key_value_heads = 4, .tied_head = true});
  layout.query_bias = layout.output_bias = nn::bias_of(json.flag("attention_bias", false));
  layout.mlp_bias = nn::bias_of(json.flag("mlp_bias", false));
  json.choice("hidden_act", "silu", {"silu", "swish"});
  const auto rope =
      nn::read_rope(json, {.head_dim = layout.heads.dim, .max_positions = layout.max_length, .theta = 2e6});
  layout.max_length = rope.longest(layout.max_length);

  const auto interval = json.positive("no_rope_layer_interval", 4);
  auto turned =
      json.integers("no_rope_layers").value_or(std::vector<std::int64_t>());  // 1: turned, whatever the name says
  if (turned.empty())
    for (std::int64_t i = 0; i < layout.layers; ++i) turned.push_back((i + 1) % interval != 0 ? 1 : 0);
  if (static_cast<std::int64_t>(turned.size()) != layout.layers)
    json.refuse("no_rope_layers", "one entry for each of num_hidden_layers");
  const auto window = json.integer("sliding_window");
  const bool use_window = json.flag("use_sliding_window", false);
  const auto sliding = nn::read_sliding_layers(
      json, layout.layers, [&](std::int64_t i) { return turned[static_cast<std::size_t>(i)] == 0; });
  json.inert({{"pretraining_tp", "how the original training split its products; the sums are the same"},
              {"max_window_layers", "Qwen's; layer_types decide"}});
  json.finish();

  auto model = nn::build(layout, {rope});
  for (std::size_t i = 0; i < turned.size(); ++i)
    if (turned[i] == 0) model.spec.blocks[i].attention.rope.reset();
  if (use_window) nn::set_windows(model, sliding, window);
  return model;
}

struct SmolLm3 final : nn::TransformerModel {
  explicit SmolLm3(Host& host) : TransformerModel("smollm3", {"smollm3"}, architecture, &host) {}
};

}  // namespace hansa::smollm3

HANSA_PLUGIN(org_hansa_smollm3, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::smollm3::SmolLm3, hansa::NoParams>("smollm3",
                                                     "SmolLM3: Llama's blocks, a quarter of them without positions.")
      .doc("Reads Hugging Face directories with model_type \"smollm3\".");
}
