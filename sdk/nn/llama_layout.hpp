// The layout that Llama (arXiv 2302.13971) started and most decoders kept: config keys, module names and a block of
// pre-norm grouped attention with rotary positions and a gated MLP. A family reads it, says where it differs, has it built,
// and changes single blocks of the result. Values; any thread. Throws hansa::Error naming the key.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/architecture.hpp"

namespace hansa::hf {
class JsonConfig;
}

namespace hansa::nn {

struct LlamaLayout {
  std::int64_t width = 0, inner = 0, layers = 0, vocabulary = 0, max_length = 0;
  Heads heads;
  double epsilon = 1e-6, deviation = 0.02, attention_dropout = 0;
  bool tied_head = false;
  // What families change.
  using Bias = Architecture::Bias;
  NormSpec::Form norm = NormSpec::Form::Rms;
  Activation activation = Activation::Silu;
  Bias query_bias = Bias::Without, output_bias = Bias::Without, mlp_bias = Bias::Without;  // query: and key, and value
  enum class Projections : std::uint8_t { Apart, Joined };  // Joined: qkv_proj and gate_up_proj (Phi-3)
  Projections projections = Projections::Apart;
  enum class HeadNorms : std::uint8_t { None, QueryAndKey };
  HeadNorms head_norms = HeadNorms::None;
  enum class Norms : std::uint8_t { Two, Four };  // Four: also after attention and after the MLP (Gemma 2)
  Norms norms = Norms::Two;
};

struct LlamaDefaults {  // where config.json is silent; 0: it has to speak
  std::int64_t width = 0, inner = 0, layers = 0, vocabulary = 0, max_length = 2048;
  std::int64_t query_heads = 0;
  std::int64_t key_value_heads = 0;  // 0: as many as query heads, which null always means
  std::int64_t head_dim = 0;         // 0: width / heads
  double epsilon = 1e-6;
  bool tied_head = false;
};
LlamaLayout read_llama_layout(hf::JsonConfig&, const LlamaDefaults& = {});

// All blocks alike: turned by rope 0, scaled by 1 / sqrt(head dim), without a window.
Architecture build(const LlamaLayout&, std::vector<RopeSettings>);

// Which layers have the window: those that layer_types call "sliding_attention", or, where there is no such key, those of
// the family's own rule.
std::vector<bool> read_sliding_layers(hf::JsonConfig&, std::int64_t layers,
                                      const std::function<bool(std::int64_t)>& rule);
void set_windows(Architecture&, const std::vector<bool>& sliding, std::optional<std::int64_t> window);

Architecture::Bias bias_of(bool there);

}  // namespace hansa::nn
