#include "gguf/family.hpp"

#include <charconv>
#include <cmath>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hf/json_config.hpp>
#include <nn/llama_layout.hpp>
#include <nn/rope_config.hpp>

#include "base/error.hpp"
#include "gguf/rope_numbers.hpp"

namespace hansa::gguf {
namespace {

struct Rule {
  std::string_view module, name;  // {} stands for a layer's number
  Change change = Change::None;
};

// What llama.cpp lacks a family needs no row for: a module without a place is refused.
constexpr Rule kLlama[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
    {"model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {"model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", Change::QueryRows},
    {"model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", Change::KeyRows},
    {"model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
    {"model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
    {"model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {"model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
    {"model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
    {"model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
};
constexpr Rule kQwen[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
    {"model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {"model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"},
    {"model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"},
    {"model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
    {"model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
    {"model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"},
    {"model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"},
    {"model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {"model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
    {"model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
    {"model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
};
constexpr Rule kGemma[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm", Change::PlusOne},
    {"lm_head", "output"},
    {"model.layers.{}.input_layernorm", "blk.{}.attn_norm", Change::PlusOne},
    {"model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"},
    {"model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"},
    {"model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
    {"model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
    {"model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Change::PlusOne},
    {"model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Change::PlusOne},
    {"model.layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm", Change::PlusOne},
    {"model.layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm", Change::PlusOne},
    {"model.layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", Change::PlusOne},
    {"model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
    {"model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
    {"model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
};
constexpr Rule kPhi3[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
    {"model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {"model.layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv"},
    {"model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
    {"model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {"model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up"},
    {"model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
};
constexpr Rule kGpt2[] = {
    {"transformer.wte", "token_embd"},
    {"transformer.wpe", "position_embd"},
    {"transformer.ln_f", "output_norm"},
    {"lm_head", "output"},
    {"transformer.h.{}.ln_1", "blk.{}.attn_norm"},
    {"transformer.h.{}.attn.c_attn", "blk.{}.attn_qkv", Change::Transposed},
    {"transformer.h.{}.attn.c_proj", "blk.{}.attn_output", Change::Transposed},
    {"transformer.h.{}.ln_2", "blk.{}.ffn_norm"},
    {"transformer.h.{}.mlp.c_fc", "blk.{}.ffn_up", Change::Transposed},
    {"transformer.h.{}.mlp.c_proj", "blk.{}.ffn_down", Change::Transposed},
};

struct Draft {
  Description& out;
  std::int64_t context = 0;  // the longest text that llama.cpp computes as the model does

  void put(std::string_view key, Value value) {
    out.numbers.emplace_back(fmt::format("{}.{}", out.architecture, key), std::move(value));
  }
  void count(std::string_view key, std::int64_t value) { put(key, static_cast<std::uint32_t>(value)); }
  void real(std::string_view key, double value) { put(key, static_cast<float>(value)); }
  void limit(std::int64_t window) {
    if (window >= context) return;
    context = window;
    out.remarks.push_back(
        fmt::format("llama.cpp has no sliding window for the architecture '{}': within the window of {} tokens nothing "
                    "changes, so that is the context length of the file",
                    out.architecture, window));
  }
  void rope(hf::JsonConfig& json, const nn::RopeSettings& settings, RopeFactors factors) {
    auto numbers = rope_numbers(json, settings, factors);
    for (auto& [key, value] : numbers.numbers) put(key, std::move(value));
    for (auto& one : numbers.extra) out.extra.push_back(std::move(one));
    for (auto& one : numbers.remarks) out.remarks.push_back(std::move(one));
  }
  void layout(const nn::LlamaLayout& l) {
    context = l.max_length;
    out.query_heads = l.heads.query;
    out.key_value_heads = l.heads.key_value;
    out.vocabulary = l.vocabulary;
    count("vocab_size", l.vocabulary);
    count("embedding_length", l.width);
    count("block_count", l.layers);
    count("feed_forward_length", l.inner);
    count("attention.head_count", l.heads.query);
    count("attention.head_count_kv", l.heads.key_value);
    count("attention.key_length", l.heads.dim);
    count("attention.value_length", l.heads.dim);
    real("attention.layer_norm_rms_epsilon", l.epsilon);
  }
};

nn::RopeReading reading_of(const nn::LlamaLayout& l) {
  return {.head_dim = l.heads.dim, .max_positions = l.max_length};
}

void read_llama(hf::JsonConfig& json, Draft& draft) {
  const auto l = nn::read_llama_layout(json);
  draft.layout(l);
  draft.rope(json, nn::read_rope(json, reading_of(l)), RopeFactors::OneTable);
}

void read_mistral(hf::JsonConfig& json, Draft& draft) {
  const auto l = nn::read_llama_layout(json, {.max_length = 131072, .key_value_heads = 8});
  draft.layout(l);
  draft.rope(json, nn::read_rope(json, reading_of(l)), RopeFactors::OneTable);
  if (const auto window = json.positive_or_null("sliding_window", 4096)) draft.limit(*window);
}

void read_smollm3(hf::JsonConfig& json, Draft& draft) {
  const auto l = nn::read_llama_layout(json, {.max_length = 32768, .key_value_heads = 4, .tied_head = true});
  draft.layout(l);
  auto reading = reading_of(l);
  reading.theta = 2e6;
  draft.rope(json, nn::read_rope(json, reading), RopeFactors::None);
  constexpr std::int64_t kStep = 4;  // llama.cpp's own number; no key says another
  const auto turned = json.integers("no_rope_layers").value_or(std::vector<std::int64_t>());
  if (turned.empty()) json.only("no_rope_layer_interval", {"4"});
  for (std::size_t i = 0; i < turned.size(); ++i)
    if ((turned[i] != 0) != ((static_cast<std::int64_t>(i) + 1) % kStep != 0))
      json.refuse("no_rope_layers", "a zero in every fourth place");
  json.only("attention_bias", {"false"});
  json.only("mlp_bias", {"false"});
  if (json.flag("use_sliding_window", false))
    if (const auto window = json.integer("sliding_window")) draft.limit(*window);
}

void read_qwen_windows(hf::JsonConfig& json, const nn::LlamaLayout& l, Draft& draft) {
  if (!json.flag("use_sliding_window", false)) return;
  const auto window = json.positive_or_null("sliding_window", 4096);
  const auto first = json.integer("max_window_layers", 28);
  const auto sliding = nn::read_sliding_layers(json, l.layers, [&](std::int64_t i) { return i >= first; });
  for (const bool one : sliding)
    if (one && window) return draft.limit(*window);
}

void read_qwen2(hf::JsonConfig& json, Draft& draft) {
  const auto l = nn::read_llama_layout(json, {.max_length = 32768, .key_value_heads = 32});
  draft.layout(l);
  draft.rope(json, nn::read_rope(json, reading_of(l)), RopeFactors::None);
  read_qwen_windows(json, l, draft);
}

void read_qwen3(hf::JsonConfig& json, Draft& draft) {
  const auto l = nn::read_llama_layout(json, {.max_length = 32768, .key_value_heads = 32, .head_dim = 128});
  draft.layout(l);
  draft.rope(json, nn::read_rope(json, reading_of(l)), RopeFactors::None);
  json.only("attention_bias", {"false"});
  read_qwen_windows(json, l, draft);
}

// A period p: the last of each p layers sees everything. `usual` where it fits as well as others.
std::int64_t period_of(hf::JsonConfig& json, const std::vector<bool>& sliding, std::int64_t usual) {
  const auto fits = [&](std::int64_t period) {
    for (std::size_t i = 0; i < sliding.size(); ++i)
      if (sliding[i] != (static_cast<std::int64_t>(i) % period < period - 1)) return false;
    return true;
  };
  if (fits(usual)) return usual;
  for (std::int64_t period = 1; period <= static_cast<std::int64_t>(sliding.size()) + 1; ++period)
    if (fits(period)) return period;
  json.refuse("layer_types", "sliding_attention but for the last of each n layers");
}

// llama.cpp knows no key for it: from the width of a head, but for the largest model, which it tells by its layers.
void require_scale(hf::JsonConfig& json, const nn::LlamaLayout& l, double usual, std::int64_t largest) {
  const double wanted = static_cast<double>(l.layers == largest ? l.width / l.heads.query : l.heads.dim);
  if (json.real("query_pre_attn_scalar", usual) != wanted)
    json.refuse("query_pre_attn_scalar", fmt::format("{:g}", wanted));
}

void read_gemma2(hf::JsonConfig& json, Draft& draft) {
  const auto l =
      nn::read_llama_layout(json, {.max_length = 8192, .key_value_heads = 4, .head_dim = 256, .tied_head = true});
  draft.layout(l);
  draft.rope(json, nn::read_rope(json, reading_of(l)), RopeFactors::None);
  require_scale(json, l, 256, 46);
  json.only("attention_bias", {"false"});
  if (!l.tied_head) json.refuse("tie_word_embeddings", "true");
  for (const auto& [key, usual] : {std::pair{"attn_logit_softcapping", 50.0}, {"final_logit_softcapping", 30.0}}) {
    const auto cap = json.real_or_null(key, usual);
    if (!cap) json.refuse(key, "a number");
    draft.real(key, *cap);
  }
  const auto window = json.positive_or_null("sliding_window", 4096);
  if (!window) json.refuse("sliding_window", "a number");
  draft.count("attention.sliding_window", *window);
  const auto sliding = nn::read_sliding_layers(json, l.layers, [](std::int64_t i) { return i % 2 == 0; });
  draft.count("attention.sliding_window_pattern", period_of(json, sliding, 2));
}

void read_gemma3(hf::JsonConfig& outer, Draft& draft) {
  auto* inner = outer.whole("text_config");
  auto& json = inner ? *inner : outer;
  const auto l = nn::read_llama_layout(json, {.width = 2304,
                                              .inner = 9216,
                                              .layers = 26,
                                              .vocabulary = 262208,
                                              .max_length = 131072,
                                              .query_heads = 8,
                                              .key_value_heads = 4,
                                              .head_dim = 256,
                                              .tied_head = true});
  draft.layout(l);
  const auto reading = reading_of(l);
  auto* tables = json.object("rope_parameters");
  const auto table = [&](const char* kind) { return tables ? tables->object(kind) : nullptr; };
  auto global = nn::read_rope_table(table("full_attention"), reading, json.real("rope_theta", 1e6));
  if (auto* scaling = json.object("rope_scaling")) global = nn::read_rope_table(scaling, reading, global.theta);
  const auto local = nn::read_rope_table(table("sliding_attention"), reading, json.real("rope_local_base_freq", 1e4));
  draft.rope(json, global, RopeFactors::None);
  if (local.scaling.index() != 0) json.refuse("rope_parameters", "sliding_attention without scaling");
  draft.real("rope.freq_base_swa", local.theta);
  require_scale(json, l, 256, 62);
  json.only("attention_bias", {"false"});
  if (!l.tied_head) json.refuse("tie_word_embeddings", "true");
  json.only("final_logit_softcapping", {"null"});
  const auto window = json.positive_or_null("sliding_window", 4096);
  if (!window) json.refuse("sliding_window", "a number");
  draft.count("attention.sliding_window", *window);
  const auto pattern = json.positive("sliding_window_pattern", 6);
  const auto sliding = nn::read_sliding_layers(json, l.layers, [&](std::int64_t i) { return (i + 1) % pattern != 0; });
  draft.count("attention.sliding_window_pattern", period_of(json, sliding, 6));
}

void read_phi3(hf::JsonConfig& json, Draft& draft) {
  const auto l = nn::read_llama_layout(json, {.max_length = 4096, .epsilon = 1e-5});
  draft.layout(l);
  if (l.heads.query * l.heads.dim != l.width) json.refuse("head_dim", "hidden_size / num_attention_heads");
  auto reading = reading_of(l);
  reading.part = 1.0;
  reading.types = nn::RopeReading::Types::LongRope;
  const auto original = json.positive("original_max_position_embeddings", 4096);
  reading.original_positions = original;
  const auto rope = nn::read_rope(json, reading);
  draft.rope(json, rope, RopeFactors::ShortAndLong);
  if (rope.scaling.index() == 0) draft.count("rope.scaling.original_context_length", original);
  const auto window = json.integer("sliding_window");
  draft.count("attention.sliding_window", window.value_or(0));
  if (window) draft.limit(*window);
}

void read_gpt2(hf::JsonConfig& json, Draft& draft) {
  const auto width = json.positive("n_embd", 768);
  draft.context = json.positive("n_positions", 1024);
  draft.out.query_heads = draft.out.key_value_heads = json.positive("n_head", 12);
  draft.out.vocabulary = json.positive("vocab_size");
  draft.count("vocab_size", draft.out.vocabulary);
  draft.count("embedding_length", width);
  draft.count("block_count", json.positive("n_layer", 12));
  draft.count("feed_forward_length", json.positive("n_inner", 4 * width));
  draft.count("attention.head_count", draft.out.query_heads);
  draft.real("attention.layer_norm_epsilon", json.real("layer_norm_epsilon", 1e-5));
  json.only("scale_attn_weights", {"true"});
  json.only("scale_attn_by_inverse_layer_idx", {"false"});
}

struct Family {
  std::vector<std::string_view> model_types;
  std::string_view architecture;
  std::span<const Rule> rules;
  void (*read)(hf::JsonConfig&, Draft&);
};

const std::vector<Family>& families() {
  static const std::vector<Family> all = {
      {{"llama"}, "llama", kLlama, read_llama},
      {{"mistral"}, "llama", kLlama, read_mistral},
      {{"smollm3"}, "smollm3", kLlama, read_smollm3},
      {{"qwen2"}, "qwen2", kQwen, read_qwen2},
      {{"qwen3"}, "qwen3", kQwen, read_qwen3},
      {{"gemma2"}, "gemma2", kGemma, read_gemma2},
      {{"gemma3_text", "gemma3"}, "gemma3", kGemma, read_gemma3},
      {{"phi3"}, "phi3", kPhi3, read_phi3},
      {{"gpt2"}, "gpt2", kGpt2, read_gpt2},
  };
  return all;
}

std::size_t family_of(const std::filesystem::path& checkpoint) {
  const auto type = hf::model_type_of(checkpoint);
  std::vector<std::string_view> known;
  for (std::size_t i = 0; i < families().size(); ++i)
    for (const auto one : families()[i].model_types) {
      if (one == type) return i;
      known.push_back(one);
    }
  throw Error(fmt::format("{}: no GGUF is written for model_type '{}'; for these it is: {}",
                          (checkpoint / "config.json").string(), type, fmt::join(known, ", ")));
}

// The number that stands for {} in the pattern; -1 where there is none; nothing where the pattern does not fit.
std::optional<std::int64_t> layer_of(std::string_view pattern, std::string_view module) {
  const auto at = pattern.find("{}");
  if (at == pattern.npos) return pattern == module ? std::optional<std::int64_t>(-1) : std::nullopt;
  const auto before = pattern.substr(0, at), after = pattern.substr(at + 2);
  if (!module.starts_with(before) || !module.ends_with(after)) return std::nullopt;
  if (module.size() <= before.size() + after.size()) return std::nullopt;
  const auto digits = module.substr(before.size(), module.size() - before.size() - after.size());
  std::int64_t layer = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (read.ec != std::errc() || read.ptr != digits.data() + digits.size() || layer < 0) return std::nullopt;
  return layer;
}

}  // namespace

Placed Description::place(std::string_view module) const {
  for (const auto& rule : families()[family_].rules)
    if (const auto layer = layer_of(rule.module, module))
      return {*layer < 0 ? std::string(rule.name) : fmt::format(fmt::runtime(rule.name), *layer), rule.change};
  throw Error(fmt::format("'{}' has no place in a GGUF file of the architecture '{}'", module, architecture));
}

Description describe(const std::filesystem::path& checkpoint) {
  Description description;
  description.family_ = family_of(checkpoint);
  const auto& family = families()[description.family_];
  description.architecture = family.architecture;
  auto json = hf::JsonConfig::read(checkpoint, fmt::format("the GGUF architecture '{}'", family.architecture));
  Draft draft{description};
  family.read(json, draft);
  draft.count("context_length", draft.context);
  return description;
}

}  // namespace hansa::gguf
