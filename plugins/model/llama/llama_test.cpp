#include "llama.hpp"

#include <nlohmann/json.hpp>

#include "../model_checks.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

// A small model with every option away from its default; `changes`: "key: value, …" instead of what stands there.
std::string config(const std::string& changes = "") {
  auto json = nlohmann::json::parse(
      R"({"model_type": "llama", "hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "vocab_size": 37,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
 "initializer_range": 0.2, "attention_bias": true, "mlp_bias": true, "attention_dropout": 0.1, "tie_word_embeddings": false})");
  json.update(nlohmann::json::parse("{" + changes + "}"));
  return json.dump();
}

model_checks::Subject subject_in(const TemporaryDirectory& temporary, const std::string& text = config()) {
  model_checks::write_text(temporary.path() / "config.json", text);
  return {[] { return std::make_unique<llama::Llama>(); }, temporary.path()};
}

void refused(const std::string& changes, const std::string& words) {
  TemporaryDirectory temporary;
  auto subject = subject_in(temporary, config(changes));
  CHECK_THROWS_WITH(subject.make()->modules(subject.directory), Contains(words));
}

}  // namespace

TEST_CASE("llama behaves as every causal model must") {
  TemporaryDirectory temporary;
  const auto subject = subject_in(temporary);
  SECTION("one seed fixes the random weights") { model_checks::same_seed_same_weights(subject); }
  SECTION("a cache changes nothing") { model_checks::cached_equals_uncached(subject); }
  SECTION("packed documents do not see each other") { model_checks::packed_documents_are_apart(subject); }
  SECTION("a merged checkpoint computes the same") { model_checks::merged_checkpoint_computes_the_same(subject); }
  SECTION("gradients are those of finite differences") { model_checks::gradients_equal_finite_differences(subject); }
  SECTION("two runs give the same bits") { model_checks::two_runs_are_bit_equal(subject); }
  SECTION("thousands of steps leave no memory behind") { model_checks::memory_stays(subject); }
  SECTION("bf16 is near") { model_checks::bf16_is_near_fp32(subject); }
  SECTION("wrong files are refused by name") { model_checks::wrong_files_are_refused(subject); }
  SECTION("wrong batches are refused") { model_checks::wrong_batches_are_refused(subject); }
}

TEST_CASE("a tied llama has no module for its head and computes with the embedding") {
  TemporaryDirectory temporary;
  const auto subject = subject_in(temporary, config(R"("tie_word_embeddings": true)"));
  CHECK(subject.make()->modules(subject.directory).back().name == "model.norm");
  model_checks::merged_checkpoint_computes_the_same(subject);
  model_checks::gradients_equal_finite_differences(subject);
}

TEST_CASE("llama accepts its own model_type only, and does not throw on others") {
  TemporaryDirectory temporary;
  auto subject = subject_in(temporary);
  CHECK(subject.make()->accepts(temporary.path()));
  model_checks::write_text(temporary.path() / "config.json", R"({"model_type": "mistral"})");
  CHECK_FALSE(subject.make()->accepts(temporary.path()));
  model_checks::write_text(temporary.path() / "config.json", "not JSON");
  CHECK_FALSE(subject.make()->accepts(temporary.path()));
  CHECK_FALSE(subject.make()->accepts(temporary.path() / "nowhere"));
}

TEST_CASE("llama refuses what it does not compute, by name") {
  refused(R"("hidden_act": "gelu")", "hidden_act");
  refused(R"("rope_scaling": {"type": "linear", "factor": 2})", "linear");
  refused(R"("rope_parameters": {"rope_type": "yarn", "rope_theta": 10000, "factor": 2})", "yarn");
  refused(R"("rope_scaling": {"rope_type": "llama3", "factor": 2})", "low_freq_factor");
  refused(R"("partial_rotary_factor": 0.5)", "partial_rotary_factor");
  refused(R"("sliding_window": 128)", "sliding_window");
  refused(R"("quantization_config": {"bits": 4})", "quantization_config");
  refused(R"("num_attention_heads": 0)", "num_attention_heads");
  refused(R"("num_key_value_heads": 3)", "num_key_value_heads");
  refused(R"("head_dim": 5)", "head_dim");
  refused(R"("head_dim": null, "num_attention_heads": 3, "num_key_value_heads": 3)", "num_attention_heads");
  refused(R"("vocab_size": "many")", "vocab_size");
  refused(R"("attention_dropout": 1.5)", "attention_dropout");
}

TEST_CASE("llama reads both spellings of the rotary keys") {
  TemporaryDirectory old_directory, new_directory;
  const std::string scaling =
      R"("factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16)";
  auto older = subject_in(old_directory,
                          config(R"("rope_theta": 500.0, "rope_scaling": {"rope_type": "llama3", )" + scaling + "}"));
  auto newer = subject_in(
      new_directory, config(R"("rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, )" + scaling + "}"));
  auto logits = [](const model_checks::Subject& subject) {
    auto model = subject.make();
    model->initialise(subject.directory, {}, 1);
    return model->logits(model_checks::one_segment_batch(1, 40, 37, 1), nullptr);
  };
  CHECK(logits(older).equal(logits(newer)));
}
