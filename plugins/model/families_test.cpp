// Every family of models, loaded from the real plugin files: what all models must do, and what each refuses.
#include <ATen/ops/ones.h>
#include <hf/tensors.hpp>
#include <nlohmann/json.hpp>

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

TEST_CASE("dropout is on in training only, and a function of its seed") {
  const Opened opened(family("gpt2"));
  auto model = opened.make();
  model->initialise(opened.folder(), {}, 1);
  auto batch = model_checks::one_segment_batch(2, 7, 41, 1);
  auto loss = [&] { return model->loss(batch).item<double>(); };
  const double plain = loss();
  CHECK(loss() == plain);
  model->enable_dropout(3);
  const double dropped = loss();
  CHECK(dropped != plain);
  CHECK(loss() != dropped);
  model->enable_dropout(3);
  CHECK(loss() == dropped);
  model->disable_dropout();
  CHECK(loss() == plain);
}
