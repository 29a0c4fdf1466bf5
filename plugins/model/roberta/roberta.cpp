// Model `roberta` (arXiv 1907.11692): BERT whose positions start after the padding id, and whose class is read from the first
// token by a head of two layers.
#include <nn/bert_layout.hpp>

#include <hansa/plugin.hpp>

namespace hansa::roberta {

nn::EncoderArchitecture architecture(const std::filesystem::path& checkpoint, const nn::ClassifierParams& params) {
  auto json = hf::JsonConfig::read(checkpoint, "roberta");
  const auto padding = json.integer("pad_token_id", 1);
  if (padding < 0) json.refuse("pad_token_id", "an id from 0 on");
  auto encoder = nn::bert_like(json, "roberta.", padding + 1);
  encoder.classifier.dense = "classifier.dense";
  encoder.classifier.head = "classifier.out_proj";
  encoder.classifier.drops_first = true;
  nn::add_classifier(encoder, encoder.body.spec.blocks[0].attention.heads.query_width(), nn::classes_of(json, params),
                     Module::Kind::Head);
  // Heads of other tasks, and a pooler that this one does not use.
  encoder.body.plan.unused_parts = {"lm_head.", "qa_outputs.", "roberta.pooler.", "pooler."};
  json.finish();
  return encoder;
}

struct Roberta final : nn::Classifier {
  Roberta(nn::ClassifierParams params, Host& host) : Classifier("roberta", {"roberta"}, architecture, params, &host) {}
};

}  // namespace hansa::roberta

HANSA_PLUGIN(org_hansa_roberta, "0.1.0") {
  using Params = hansa::nn::ClassifierParams;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<hansa::roberta::Roberta, Params>("roberta",
                                            "RoBERTa with a classification head: BERT's blocks, positions after the "
                                            "padding id.")
      .doc(
          "Reads Hugging Face directories with model_type \"roberta\" (arXiv 1907.11692). A head that the files lack "
          "starts at random, the same everywhere. Train the head with the adapter: modules_to_save = "
          "[\"classifier.dense\", \"classifier.out_proj\"].")
      .param(&Params::classes, "classes", "Number of classes; left out: as config.json says.",
             hansa::range(2, 1 << 20));
}
