// Every family of models, loaded from the real plugin files: what all models must do, and what each refuses.
#include <cmath>

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <hf/tensors.hpp>
#include <nlohmann/json.hpp>

#include "front_checks.hpp"
#include "model_checks.hpp"
#include "plugin_host/instance.hpp"
#include "plugin_host/registry.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

struct Refusal {
  const char *changes, *words;  // keys of config.json instead of what stands there; what the message has to say
};
struct Family {
  const char *name, *config;  // a small model with options away from their defaults
  std::vector<Refusal> refusals;
};

const std::vector<Family>& families() {
  static const std::vector<Family> all{
      {"llama",
       R"({"model_type": "llama", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
 "initializer_range": 0.2, "attention_bias": true, "mlp_bias": true, "attention_dropout": 0.1})",
       {{R"("hidden_act": "gelu")", "hidden_act"},
        {R"("rope_scaling": {"rope_type": "llama3", "factor": 2})", "low_freq_factor"},
        {R"("partial_rotary_factor": 0.5)", "partial_rotary_factor"},
        {R"("sliding_window": 128)", "sliding_window"},
        {R"("quantization_config": {"bits": 4})", "quantization_config"},
        {R"("num_attention_heads": 0)", "num_attention_heads"},
        {R"("num_key_value_heads": 3)", "num_key_value_heads"},
        {R"("head_dim": 5)", "head_dim"},
        {R"("head_dim": null, "num_attention_heads": 3, "num_key_value_heads": 3)", "num_attention_heads"},
        {R"("vocab_size": "many")", "vocab_size"},
        {R"("attention_dropout": 1.5)", "attention_dropout"}}},
      {"gpt2",
       R"({"model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 48, "vocab_size": 41,
 "n_inner": null, "initializer_range": 0.2, "scale_attn_by_inverse_layer_idx": true, "summary_type": "cls_index"})",
       {{R"("activation_function": "relu")", "activation_function"},
        {R"("add_cross_attention": true)", "add_cross_attention"},
        {R"("n_head": 5)", "n_head"},
        {R"("n_head": 0)", "n_head"},
        {R"("attn_pdrop": 1.5)", "attn_pdrop"},
        {R"("rotary_dim": 16)", "rotary_dim"}}},
      {"smollm3",
       R"({"model_type": "smollm3", "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "initializer_range": 0.2, "num_key_value_heads": 2, "max_position_embeddings": 64,
 "no_rope_layer_interval": 2, "use_sliding_window": true, "sliding_window": 4, "attention_bias": true})",
       {{R"("no_rope_layers": [1])", "no_rope_layers"},
        {R"("layer_types": ["full_attention", "chunked_attention"])", "layer_types"},
        {R"("rope_scaling": {"rope_type": "proportional"})", "proportional"}}},
      {"mistral",
       R"({"model_type": "mistral", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "initializer_range": 0.2, "num_key_value_heads": 2, "head_dim": 6,
 "max_position_embeddings": 64, "sliding_window": 4})",
       {{R"("sliding_window": 0)", "sliding_window"}, {R"("attention_bias": true)", "attention_bias"}}},
      {"qwen2",
       R"({"model_type": "qwen2", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "initializer_range": 0.2, "num_key_value_heads": 1, "max_position_embeddings": 64,
 "hidden_size": 24, "use_sliding_window": true, "sliding_window": 3, "max_window_layers": 1})",
       {{R"("layer_types": ["full_attention"])", "layer_types"}, {R"("use_mrope": true)", "use_mrope"}}},
      {"qwen3",
       R"({"model_type": "qwen3", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "initializer_range": 0.2, "num_key_value_heads": 2, "head_dim": 6,
 "max_position_embeddings": 64, "attention_bias": true})",
       {{R"("hidden_act": "gelu")", "hidden_act"}, {R"("num_experts": 4)", "num_experts"}}},
      {"gemma2",
       R"({"model_type": "gemma2", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "initializer_range": 0.2, "num_key_value_heads": 2, "head_dim": 6,
 "max_position_embeddings": 64, "sliding_window": 4, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0,
 "final_logit_softcapping": 3.0})",
       {{R"("use_bidirectional_attention": true)", "use_bidirectional_attention"},
        {R"("hidden_activation": "relu")", "hidden_activation"}}},
      {"gemma3",
       R"({"model_type": "gemma3_text", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "initializer_range": 0.2, "num_key_value_heads": 2, "head_dim": 6,
 "max_position_embeddings": 64, "sliding_window": 4, "sliding_window_pattern": 2, "rope_local_base_freq": 100.0})",
       {{R"("use_bidirectional_attention": true)", "use_bidirectional_attention"},
        {R"("attn_logit_softcapping": 50.0)", "attn_logit_softcapping"},
        {R"("rope_scaling": {"rope_type": "linear"})", "factor"}}},
      {"phi3",
       R"({"model_type": "phi3", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "initializer_range": 0.2, "num_key_value_heads": 2, "max_position_embeddings": 64,
 "hidden_size": 32, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 64, "sliding_window": 5,
 "rope_scaling": {"type": "su", "short_factor": [1.0, 2.0], "long_factor": [2.0, 4.0]}})",
       {{R"("rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0, 4.0]})", "short_factor"},
        {R"("rope_scaling": {"type": "linear", "factor": 2.0})", "linear"},
        {R"("lm_head_bias": true)", "lm_head_bias"},
        {R"("partial_rotary_factor": 0.1)", "partial_rotary_factor"}}},
      {"gpt_neox",
       R"({"model_type": "gpt_neox", "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 3, "initializer_range": 0.2, "max_position_embeddings": 64, "hidden_dropout": 0.1})",
       {{R"("hidden_act": "gelu_new")", "hidden_act"}, {R"("rotary_pct": 0.05)", "rotary_pct"}}},
      {"opt",
       R"({"model_type": "opt", "hidden_size": 24, "ffn_dim": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 3, "init_std": 0.2, "max_position_embeddings": 64, "word_embed_proj_dim": 14,
 "do_layer_norm_before": false, "activation_function": "gelu"})",
       {{R"("layerdrop": 0.1)", "layerdrop"}, {R"("activation_function": "silu")", "activation_function"}}},
  };
  return all;
}

class Opened {
 public:
  explicit Opened(const Family& family, const std::string& changes = "") : name_(family.name) {
    registry_.scan(
        {std::filesystem::path(HANSA_PLUGIN_FOLDER) / (std::string("hansa_") + family.name + ".so"), "the test"});
    change(family, changes);
  }
  void change(const Family& family, const std::string& changes) const {
    auto json = nlohmann::json::parse(family.config);
    json.update(nlohmann::json::parse("{" + changes + "}"));
    model_checks::write_text(folder() / "config.json", json.dump());
  }
  const std::filesystem::path& folder() const { return temporary_.path(); }
  std::shared_ptr<Model> make() const { return create<Model>(registry_, name_, Value(), HostServices{}); }
  model_checks::Subject subject() const {
    return {[this] { return make(); }, folder()};
  }

 private:
  TemporaryDirectory temporary_;
  StrategyRegistry registry_;
  std::string name_;
};

const Family& family(std::string_view name) {
  return *std::ranges::find_if(families(), [&](const Family& one) { return one.name == name; });
}

}  // namespace

TEST_CASE("every family behaves as a causal model must") {
  for (const auto& one : families()) {
    INFO(one.name);
    const Opened opened(one);
    const auto subject = opened.subject();
    model_checks::cached_equals_uncached(subject);
    model_checks::packed_documents_are_apart(subject);
    model_checks::merged_checkpoint_computes_the_same(subject);
    model_checks::gradients_equal_finite_differences(subject);
    model_checks::bf16_is_near_fp32(subject);
    model_checks::wrong_files_are_refused(subject);
    model_checks::wrong_batches_are_refused(subject);
  }
}

TEST_CASE("every family takes soft prompts and prefixes before each row") {
  for (const auto& one : families()) {
    INFO(one.name);
    const Opened opened(one);
    const auto subject = opened.subject();
    const bool scaled = std::string_view(one.name).starts_with("gemma");
    model_checks::soft_tokens_are_as_words(subject, scaled ? std::sqrt(20.0) : 1);
    model_checks::fronts_agree_however_rows_are_computed(subject);
    model_checks::gradients_of_fronts_equal_finite_differences(subject);
    model_checks::fronts_take_room(subject);
  }
}

TEST_CASE("every family accepts its own model_type only, and refuses what it does not compute by name") {
  for (const auto& one : families()) {
    INFO(one.name);
    const Opened opened(one);
    const auto model = opened.make();
    CHECK(model->accepts(opened.folder()));
    for (const auto& [changes, words] : one.refusals) {
      opened.change(one, changes);
      CHECK_THROWS_WITH(model->modules(opened.folder()), Contains(words));
    }
    opened.change(one, R"("model_type": "another")");
    CHECK_FALSE(model->accepts(opened.folder()));
    model_checks::write_text(opened.folder() / "config.json", "not JSON");
    CHECK_FALSE(model->accepts(opened.folder()));
    CHECK_FALSE(model->accepts(opened.folder() / "nowhere"));
  }
}

TEST_CASE("every family computes on the device that it was opened for") {
  for (const auto& one : families()) {
    INFO(one.name);
    if (std::string_view(one.name) == "phi3")
      continue;  // longrope asks for the texts' lengths, and on meta there are none
    const Opened opened(one);
    model_checks::stays_on_its_device(opened.subject());
  }
}

TEST_CASE("seeds fix random weights and training, which leaves no memory behind") {
  const Opened opened(family("llama"));
  const auto subject = opened.subject();
  model_checks::same_seed_same_weights(subject);
  model_checks::two_runs_are_bit_equal(subject);
  model_checks::memory_stays(subject);
}

TEST_CASE("a tied head has no module and computes with the embedding") {
  const Opened opened(family("llama"), R"("tie_word_embeddings": true)");
  for (const auto& module : opened.make()->modules(opened.folder())) CHECK(module.kind != Module::Kind::Head);
  model_checks::merged_checkpoint_computes_the_same(opened.subject());
  model_checks::gradients_equal_finite_differences(opened.subject());
}

TEST_CASE("both spellings of the rotary keys mean the same") {
  const std::string scaling =
      R"("factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16)";
  const auto logits = [&](const std::string& changes) {
    const Opened opened(family("llama"), changes);
    const auto model = opened.make();
    model->initialise(opened.folder(), {}, 3);
    return model->logits(model_checks::one_segment_batch(1, 40, 37, 1), nullptr);
  };
  const auto older = logits(R"("rope_theta": 5000.0, "rope_scaling": {"rope_type": "llama3", )" + scaling + "}");
  CHECK(logits(R"("rope_parameters": {"rope_type": "llama3", "rope_theta": 5000.0, )" + scaling + "}").equal(older));
  CHECK_FALSE(logits(R"("rope_theta": 5000.0)").equal(older));
}

TEST_CASE(
    "a scaling that hangs on a text's length: packing changes nothing, and generation does not cross the length") {
  for (const char* scaling : {R"({"type": "dynamic", "factor": 4.0})",
                              R"({"type": "longrope", "short_factor": [1, 1.5, 2], "long_factor": [2, 4, 8],
                                  "original_max_position_embeddings": 16})"}) {
    const bool dynamic = std::string_view(scaling).find("dynamic") != std::string_view::npos;
    const Opened opened(family("llama"), std::string(R"("max_position_embeddings": )") + (dynamic ? "16" : "64") +
                                             R"(, "rope_scaling": )" + scaling);
    const auto model = opened.make();
    model->initialise(opened.folder(), {}, 3);
    CHECK(model->max_length() == 64);
    const auto a = model_checks::one_segment_batch(1, 10, 37, 1), b = model_checks::one_segment_batch(1, 24, 37, 2);
    const Batch packed{.tokens = at::cat({a.tokens, b.tokens}, 1),
                       .positions = at::cat({at::arange(10, at::kLong), at::arange(24, at::kLong)}).unsqueeze(0),
                       .segments = at::cat({at::zeros({1, 10}, at::kLong), at::ones({1, 24}, at::kLong)}, 1)};
    const auto together = model->logits(packed, nullptr);
    CHECK(at::allclose(together.narrow(1, 0, 10), model->logits(a, nullptr), 1e-4, 1e-5));
    CHECK(at::allclose(together.narrow(1, 10, 24), model->logits(b, nullptr), 1e-4, 1e-5));
    const auto cache = model->cache(1, 24);
    model->logits({.tokens = b.tokens.narrow(1, 0, 15)}, cache.get());
    model->logits({.tokens = b.tokens.narrow(1, 15, 1)}, cache.get());
    CHECK_THROWS_WITH(model->logits({.tokens = b.tokens.narrow(1, 16, 1)}, cache.get()), Contains("beyond 16 tokens"));
  }
}

TEST_CASE("the text half of a Gemma 3 that sees is read under either prefix, the other half left alone") {
  const Opened opened(family("gemma3"));
  auto model = opened.make();
  model->initialise(opened.folder(), {}, 1);
  const auto batch = model_checks::one_segment_batch(2, 9, 37, 1);
  const auto wanted = model->logits(batch, nullptr);
  const auto text = nlohmann::json::parse(family("gemma3").config);
  model_checks::write_text(opened.folder() / "config.json", nlohmann::json{{"model_type", "gemma3"},
                                                                           {"text_config", text},
                                                                           {"vision_config", {{"hidden_size", 8}}},
                                                                           {"image_token_index", 5}}
                                                                .dump());
  for (const std::string prefix : {"language_model.model.", "model.language_model."}) {
    auto tensors = model->merged();
    for (auto& [name, tensor] : tensors) name = prefix + name.substr(std::string("model.").size());
    tensors.emplace_back("vision_tower.patch.weight", at::ones({2}));
    hf::save_tensors(opened.folder() / "model.safetensors", tensors);
    auto reopened = opened.make();
    reopened->open(opened.folder(), {});
    CHECK(reopened->logits(batch, nullptr).equal(wanted));
  }
}

TEST_CASE("gpt2 reads files whose names lack the prefix, with the stored causal mask") {
  const Opened opened(family("gpt2"));
  auto model = opened.make();
  model->initialise(opened.folder(), {}, 1);
  auto tensors = model->merged();
  for (auto& [name, tensor] : tensors) name = name.substr(std::string("transformer.").size());
  tensors.emplace_back("h.0.attn.bias", tensors.front().second.clone());
  hf::save_tensors(opened.folder() / "model.safetensors", tensors);
  auto reopened = opened.make();
  reopened->open(opened.folder(), {});
  auto batch = model_checks::one_segment_batch(2, 7, 41, 1);
  CHECK(reopened->logits(batch, nullptr).equal(model->logits(batch, nullptr)));
}

TEST_CASE("dropout is on in training only, a function of its seed, and 0.1 where the family's config names none") {
  const Family bert{"bert",
                    R"({"model_type": "bert", "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2,
 "vocab_size": 37, "num_attention_heads": 3, "initializer_range": 0.2, "max_position_embeddings": 64})",
                    {}};
  struct Case {
    const Family& family;
    const char* none;  // keys that turn all of it off
  };
  const Case cases[] = {
      {family("gpt2"), R"("resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0)"},
      {family("opt"), R"("dropout": 0)"},
      {bert, R"("hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "classifier_dropout": 0)"}};
  for (const auto& one : cases) {
    INFO(one.family.name);
    for (const bool honoured : {true, false}) {
      const Opened opened(one.family, honoured ? "" : one.none);
      auto model = opened.make();
      model->initialise(opened.folder(), {}, 1);
      auto batch = model_checks::one_segment_batch(2, 7, 37, 1);
      if (&one.family == &bert) batch.labels = at::zeros({2}, at::kLong);
      auto loss = [&] { return model->loss(batch).item<double>(); };
      const double plain = loss();
      CHECK(loss() == plain);
      model->enable_dropout(3);
      const double dropped = loss();
      CHECK((dropped != plain) == honoured);
      CHECK((loss() != dropped) == honoured);
      model->enable_dropout(3);
      CHECK(loss() == dropped);
      model->disable_dropout();
      CHECK(loss() == plain);
    }
  }
}
