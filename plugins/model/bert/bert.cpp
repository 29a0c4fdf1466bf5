// Model `bert` (arXiv 1810.04805): every token sees all others, norms after each half of a block, learned positions; the
// class is read from the first token through the pooler.
#include <nn/bert_layout.hpp>

#include <hansa/plugin.hpp>

namespace hansa::bert {

nn::EncoderArchitecture architecture(const std::filesystem::path& checkpoint, const nn::ClassifierParams& params) {
  auto json = hf::JsonConfig::read(checkpoint, "bert");
  auto encoder = nn::bert_like(json, "bert.", 0);
  encoder.classifier.dense = "bert.pooler.dense";
  encoder.classifier.head = "classifier";
  nn::add_classifier(encoder, encoder.body.spec.blocks[0].attention.heads.query_width(), nn::classes_of(json, params),
                     Module::Kind::Linear);
  encoder.body.plan.unused_parts = {"cls.", "qa_outputs."};  // heads of other tasks
  json.finish();
  return encoder;
}

struct Bert final : nn::Classifier {
  Bert(nn::ClassifierParams params, Host& host) : Classifier("bert", {"bert"}, architecture, params, &host) {}
};

}  // namespace hansa::bert

HANSA_PLUGIN(org_hansa_bert, "0.1.0") {
  using Params = hansa::nn::ClassifierParams;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<hansa::bert::Bert, Params>("bert", "BERT with a classification head: bidirectional, norms last, pooler.")
      .doc(
          "Reads Hugging Face directories with model_type \"bert\" (arXiv 1810.04805). A pooler or head that the files "
          "lack starts at random, the same everywhere. Train the head with the adapter: modules_to_save = "
          "[\"classifier\"].")
      .param(&Params::classes, "classes", "Number of classes; left out: as config.json says.",
             hansa::range(2, 1 << 20));
}
