#include "gpt2.hpp"

#include <hf/tensors.hpp>
#include <nlohmann/json.hpp>

#include "../model_checks.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

std::string config(const std::string& changes = "") {
  auto json = nlohmann::json::parse(
      R"({"model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 48, "vocab_size": 41,
 "n_inner": null, "initializer_range": 0.2, "scale_attn_by_inverse_layer_idx": true, "summary_type": "cls_index"})");
  json.update(nlohmann::json::parse("{" + changes + "}"));
  return json.dump();
}

model_checks::Subject subject_in(const TemporaryDirectory& temporary, const std::string& text = config()) {
  model_checks::write_text(temporary.path() / "config.json", text);
  return {[] { return std::make_unique<gpt2::Gpt2>(); }, temporary.path()};
}

void refused(const std::string& changes, const std::string& words) {
  TemporaryDirectory temporary;
  auto subject = subject_in(temporary, config(changes));
  CHECK_THROWS_WITH(subject.make()->modules(subject.directory), Contains(words));
}

}  // namespace

TEST_CASE("gpt2 behaves as every causal model must") {
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

TEST_CASE("gpt2 reads files whose names lack the prefix, with the stored causal mask") {
  TemporaryDirectory temporary;
  const auto subject = subject_in(temporary);
  auto model = subject.make();
  model->initialise(subject.directory, {}, 1);
  auto tensors = model->merged();
  for (auto& [name, tensor] : tensors) name = name.substr(std::string("transformer.").size());
  tensors.emplace_back("h.0.attn.bias", tensors.front().second.clone());
  hf::save_tensors(temporary.path() / "model.safetensors", tensors);
  auto reopened = subject.make();
  reopened->open(temporary.path(), {});
  auto batch = model_checks::one_segment_batch(2, 7, 41, 1);
  CHECK(reopened->logits(batch, nullptr).equal(model->logits(batch, nullptr)));
}

TEST_CASE("dropout is on in training only, and a function of its seed") {
  TemporaryDirectory temporary;
  const auto subject = subject_in(temporary);
  auto model = subject.make();
  model->initialise(subject.directory, {}, 1);
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

TEST_CASE("gpt2 refuses what it does not compute, by name") {
  refused(R"("activation_function": "relu")", "activation_function");
  refused(R"("add_cross_attention": true)", "add_cross_attention");
  refused(R"("n_head": 5)", "n_head");
  refused(R"("n_head": 0)", "n_head");
  refused(R"("attn_pdrop": 1.5)", "attn_pdrop");
  refused(R"("rotary_dim": 16)", "rotary_dim");
}
