// Model `distilbert` (arXiv 1910.01108): BERT without token types and pooler; the class is read from the first token through a
// layer with ReLU.
#include <fmt/format.h>
#include <nn/bert_layout.hpp>

#include <hansa/plugin.hpp>

namespace hansa::distilbert {

nn::EncoderArchitecture architecture(const std::filesystem::path& checkpoint, const nn::ClassifierParams& params) {
  auto json = hf::JsonConfig::read(checkpoint, "distilbert");
  nn::EncoderArchitecture encoder;
  auto& a = encoder.body;
  const auto width = json.positive("dim", 768);
  const nn::EncoderSizes sizes{.width = width,
                               .inner = json.positive("hidden_dim", 4 * width),
                               .layers = json.positive("n_layers", 6),
                               .heads = json.positive("n_heads", 12),
                               .activation = nn::activation_of(json, "activation"),
                               .dropout = json.fraction("dropout", 0.1),
                               .attention_dropout = json.fraction("attention_dropout", 0.1)};
  if (width % sizes.heads != 0) json.refuse("n_heads", "a divisor of dim");
  a.plan.vocabulary = json.positive("vocab_size");
  a.plan.max_length = json.positive("max_position_embeddings", 512);
  const auto in = [&](const char* rest) { return fmt::format("distilbert.embeddings.{}", rest); };
  a.spec.embedding = {.tokens = a.embedding(in("word_embeddings"), a.plan.vocabulary, width),
                      .positions = a.embedding(in("position_embeddings"), a.plan.max_length, width),
                      .norm = a.norm(nn::NormSpec::Form::Layer, in("LayerNorm"), width, sizes.epsilon),
                      .dropout = sizes.dropout};
  nn::add_blocks(a, sizes, "distilbert.transformer.layer",
                 {.query = "attention.q_lin",
                  .key = "attention.k_lin",
                  .value = "attention.v_lin",
                  .output = "attention.out_lin",
                  .attention_norm = "sa_layer_norm",
                  .up = "ffn.lin1",
                  .down = "ffn.lin2",
                  .mlp_norm = "output_layer_norm"});
  a.plan.optional_prefix = "distilbert.";
  a.plan.unused = {"embeddings.position_ids"};
  a.plan.unused_parts = {"vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."};  // other heads
  encoder.classifier = {.dense = "pre_classifier",
                        .head = "classifier",
                        .squash = nn::ClassifierSpec::Squash::Relu,
                        .dropout = json.fraction("seq_classif_dropout", 0.2)};
  nn::add_classifier(encoder, width, nn::classes_of(json, params), Module::Kind::Linear);
  nn::start_normal(a, json.real("initializer_range", 0.02));
  nn::read_usual_keys(json);
  json.inert({{"sinusoidal_pos_embds", "how the table of positions starts; it is stored"},
              {"qa_dropout", "of a head for another task"}});
  json.finish();
  return encoder;
}

struct DistilBert final : nn::Classifier {
  DistilBert(nn::ClassifierParams params, Host& host)
      : Classifier("distilbert", {"distilbert"}, architecture, params, &host) {}
};

}  // namespace hansa::distilbert

HANSA_PLUGIN(org_hansa_distilbert, "0.1.0") {
  using Params = hansa::nn::ClassifierParams;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::distilbert::DistilBert, Params>("distilbert",
                                                  "DistilBERT with a classification head: BERT's blocks, no token "
                                                  "types.")
      .doc(
          "Reads Hugging Face directories with model_type \"distilbert\" (arXiv 1910.01108). A head that the files "
          "lack "
          "starts at random, the same everywhere. Train the head with the adapter: modules_to_save = "
          "[\"classifier\", \"pre_classifier\"].")
      .param(&Params::classes, "classes", "Number of classes; left out: as config.json says.",
             hansa::range(2, 1 << 20));
}
