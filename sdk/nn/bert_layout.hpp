// What the encoders that are laid out like BERT share when they read config.json and name their modules. Pure functions.
#pragma once
#include <string>

#include <hf/json_config.hpp>

#include "nn/classifier.hpp"

namespace hansa::nn {

struct EncoderSizes {
  std::int64_t width = 0, inner = 0, layers = 0, heads = 0;
  Activation activation = Activation::Gelu;
  double epsilon = 1e-12, dropout = 0, attention_dropout = 0;
};
struct EncoderNames {  // within a block
  std::string_view query, key, value, output, attention_norm, up, down, mlp_norm;
};

Activation activation_of(hf::JsonConfig&, const char* key);
// The number of classes: the parameter, else num_labels, else the names in id2label, else 2.
std::int64_t classes_of(hf::JsonConfig&, const ClassifierParams&);
// Keys that every encoder's config has and that change nothing here, or must be what they usually are.
void read_usual_keys(hf::JsonConfig&);
// Blocks named "<start>.<number>.<name>".
void add_blocks(Architecture&, const EncoderSizes&, const std::string& start, const EncoderNames&);
// The dense layer belongs to the body or to the head, which PEFT trains whole: `kind`.
void add_classifier(EncoderArchitecture&, std::int64_t width, std::int64_t classes, Module::Kind dense);
// BERT and RoBERTa: keys, embeddings and blocks, all but the classifier, under a prefix such as "bert.".
EncoderArchitecture bert_like(hf::JsonConfig&, const std::string& prefix, std::int64_t first_position);
void start_normal(Architecture&, double deviation);  // random weights, also of a head that a checkpoint lacks

}  // namespace hansa::nn
