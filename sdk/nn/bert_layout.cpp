#include "nn/bert_layout.hpp"

#include <cmath>

#include <fmt/format.h>

namespace hansa::nn {

Activation activation_of(hf::JsonConfig& json, const char* key) {
  const auto name = json.choice(key, "gelu", {"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"});
  if (name == "gelu") return Activation::Gelu;
  if (name == "relu") return Activation::Relu;
  return name == "silu" || name == "swish" ? Activation::Silu : Activation::GeluTanh;
}

std::int64_t classes_of(hf::JsonConfig& json, const ClassifierParams& params) {
  const auto count = json.integer("num_labels");
  std::int64_t named = 0;
  if (auto* names = json.object("id2label"))
    while (names->has(std::to_string(named))) names->text(std::to_string(named++));
  json.inert({{"label2id", "the other way round"}});
  if (params.classes) return *params.classes;
  if (count && *count < 1) json.refuse("num_labels", "at least 1");
  return count ? *count : named > 0 ? named : 2;
}

void read_usual_keys(hf::JsonConfig& json) {
  json.only("problem_type", {"\"single_label_classification\""});
  json.only("is_decoder", {"false"});
  json.only("add_cross_attention", {"false"});
  json.only("position_embedding_type", {"\"absolute\""});
  json.inert({{"tie_word_embeddings", "of a head over the vocabulary, which a classifier has not"},
              {"tie_weights_", "of a head over the vocabulary, which a classifier has not"},
              {"gradient_checkpointing", "how Python trained it"},
              {"chunk_size_feed_forward", "how Python computes the same"},
              {"finetuning_task", "where the file came from"},
              {"directionality", "of an older format; never read"},
              {"pooler_fc_size", "of an older format; never read"},
              {"pooler_num_attention_heads", "of an older format; never read"},
              {"pooler_num_fc_layers", "of an older format; never read"},
              {"pooler_size_per_head", "of an older format; never read"},
              {"pooler_type", "of an older format; never read"}});
}

void add_blocks(Architecture& a, const EncoderSizes& sizes, const std::string& start, const EncoderNames& names) {
  using Bias = Architecture::Bias;
  a.plan.layers = sizes.layers;
  a.plan.heads = {.query = sizes.heads, .key_value = sizes.heads, .dim = sizes.width / sizes.heads};
  for (std::int64_t i = 0; i < sizes.layers; ++i) {
    const auto in = [&](std::string_view rest) { return fmt::format("{}.{}.{}", start, i, rest); };
    const auto linear = [&](std::string_view name, std::int64_t from, std::int64_t to) {
      return a.linear(in(name), from, to, Bias::With);
    };
    const auto norm = [&](std::string_view name) {
      return a.norm(NormSpec::Form::Layer, in(name), sizes.width, sizes.epsilon);
    };
    BlockSpec block{.order = BlockSpec::Order::NormLast, .dropout = sizes.dropout};
    block.attention = {.query = linear(names.query, sizes.width, sizes.width),
                       .key = linear(names.key, sizes.width, sizes.width),
                       .value = linear(names.value, sizes.width, sizes.width),
                       .output = linear(names.output, sizes.width, sizes.width),
                       .heads = a.plan.heads,
                       .scale = 1 / std::sqrt(static_cast<double>(a.plan.heads.dim)),
                       .dropout = sizes.attention_dropout};
    block.attention_norm = norm(names.attention_norm);
    block.mlp = {.up = linear(names.up, sizes.width, sizes.inner),
                 .down = linear(names.down, sizes.inner, sizes.width),
                 .activation = sizes.activation};
    block.mlp_norm = norm(names.mlp_norm);
    a.spec.blocks.push_back(block);
  }
  a.spec.causal = false;
}

void add_classifier(EncoderArchitecture& encoder, std::int64_t width, std::int64_t classes, Module::Kind dense) {
  auto& plan = encoder.body.plan;
  plan.modules.push_back({.name = encoder.classifier.dense, .kind = dense, .in = width, .out = width, .bias = true});
  plan.modules.push_back(
      {.name = encoder.classifier.head, .kind = Module::Kind::Head, .in = width, .out = classes, .bias = true});
  plan.head = encoder.classifier.head;
  plan.fresh_where_missing = {encoder.classifier.dense, encoder.classifier.head};
}

EncoderArchitecture bert_like(hf::JsonConfig& json, const std::string& prefix, std::int64_t first_position) {
  EncoderArchitecture encoder;
  auto& a = encoder.body;
  const auto width = json.positive("hidden_size", 768);
  EncoderSizes sizes{.width = width,
                     .inner = json.positive("intermediate_size", 3072),
                     .layers = json.positive("num_hidden_layers", 12),
                     .heads = json.positive("num_attention_heads", 12),
                     .activation = activation_of(json, "hidden_act"),
                     .epsilon = json.real("layer_norm_eps", 1e-12),
                     .dropout = json.fraction("hidden_dropout_prob", 0.1),
                     .attention_dropout = json.fraction("attention_probs_dropout_prob", 0.1)};
  if (width % sizes.heads != 0) json.refuse("num_attention_heads", "a divisor of hidden_size");
  const auto positions = json.positive("max_position_embeddings", 512);
  if (positions <= first_position) json.refuse("max_position_embeddings", "more than pad_token_id + 1");
  a.plan.vocabulary = json.positive("vocab_size");
  a.plan.max_length = positions - first_position;
  const auto in = [&](std::string_view rest) { return fmt::format("{}embeddings.{}", prefix, rest); };
  a.spec.embedding = {.tokens = a.embedding(in("word_embeddings"), a.plan.vocabulary, width),
                      .positions = a.embedding(in("position_embeddings"), positions, width),
                      .position_offset = first_position,
                      .types = a.embedding(in("token_type_embeddings"), json.positive("type_vocab_size", 2), width),
                      .norm = a.norm(NormSpec::Form::Layer, in("LayerNorm"), width, sizes.epsilon),
                      .dropout = sizes.dropout};
  add_blocks(a, sizes, prefix + "encoder.layer",
             {.query = "attention.self.query",
              .key = "attention.self.key",
              .value = "attention.self.value",
              .output = "attention.output.dense",
              .attention_norm = "attention.output.LayerNorm",
              .up = "intermediate.dense",
              .down = "output.dense",
              .mlp_norm = "output.LayerNorm"});
  a.plan.optional_prefix = prefix;
  a.plan.unused = {"embeddings.position_ids"};
  a.plan.older_ends = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}};
  encoder.classifier.dropout = json.fraction("classifier_dropout", sizes.dropout);
  start_normal(a, json.real("initializer_range", 0.02));
  read_usual_keys(json);
  return encoder;
}

void start_normal(Architecture& a, double deviation) {
  a.plan.initial_deviation = [deviation](const Module&) { return deviation; };
}

}  // namespace hansa::nn
