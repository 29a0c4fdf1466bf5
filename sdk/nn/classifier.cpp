#include "nn/classifier.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tanh.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "base/error.hpp"
#include "nn/layers.hpp"

namespace hansa::nn {

namespace {

class Encoder final : public Decoder {
 public:
  explicit Encoder(EncoderArchitecture architecture)
      : classifier_(std::move(architecture.classifier)), body_(std::move(architecture.body)) {}
  const DecoderPlan& plan() const override { return body_.plan(); }
  void bind(Places& places) override {
    body_.bind(places);
    dense_ = &places.at(classifier_.dense);
    head_ = &places.at(classifier_.head);
  }
  at::Tensor forward(const Pass& pass) override { return body_.forward(pass); }
  std::int64_t classes() const { return head_->module.out; }
  at::Tensor classify(const Pass& pass) {
    auto x = body_.forward_with_prompt(pass).select(1, 0);  // the row's first: of a soft prompt, as PEFT has it
    if (classifier_.drops_first) x = pass.dropout.apply(x, classifier_.dropout);
    x = linear(*dense_, x, pass.dropout);
    x = classifier_.squash == ClassifierSpec::Squash::Tanh ? at::tanh(x) : at::relu(x);
    return linear(*head_, pass.dropout.apply(x, classifier_.dropout), pass.dropout).to(at::kFloat);
  }

 private:
  ClassifierSpec classifier_;
  Transformer body_;
  const Place *dense_ = nullptr, *head_ = nullptr;
};

at::Tensor losses_of(const at::Tensor& logits, const at::Tensor& labels, std::int64_t reduction) {
  return at::nll_loss(at::log_softmax(logits, -1), labels.to(logits.device()), {}, reduction);  // -100 counts nothing
}

}  // namespace

Classifier::Classifier(std::string name, std::vector<std::string> model_types, Read from,
                       const ClassifierParams& params, Host* host)
    : CausalModel(
          name, std::move(model_types),
          [from, params](const std::filesystem::path& checkpoint) -> std::unique_ptr<Decoder> {
            return std::make_unique<Encoder>(from(checkpoint, params));
          },
          host),
      name_(std::move(name)) {}

std::int64_t Classifier::classes() const {
  plan();
  return static_cast<const Encoder&>(decoder()).classes();
}

at::Tensor Classifier::classify(const Batch& batch, Dropout& dropout) {
  const auto complete = checked(batch, nullptr);
  const auto& segments = batch.segments;
  if (segments.defined()) {
    if (segments.max().item<std::int64_t>() > 0)
      throw Error(fmt::format("model {} tells a class for each row, and a row holds several texts", name_));
    if (segments.select(1, 0).min().item<std::int64_t>() < 0)
      throw Error(fmt::format("model {} reads the class at a row's first token, and that is padding", name_));
  }
  return static_cast<Encoder&>(decoder()).classify(pass(complete, dropout, nullptr));
}

void Classifier::require_labels(const Batch& batch) const {
  const auto& labels = batch.labels;
  if (!labels.defined() || labels.dim() != 1 || !batch.tokens.defined() || labels.size(0) != batch.tokens.size(0))
    throw Error(
        fmt::format("model {} tells a class for each row, and this batch does not hold a label for each; choose a data "
                    "source of texts with classes",
                    name_));
  const auto largest = labels.max().item<std::int64_t>(), most = classes();
  if (largest >= most)
    throw Error(
        fmt::format("class {} is none of this model's {}, which are numbered from 0; set the model's classes to the "
                    "number that the data has",
                    largest, most));
}

at::Tensor Classifier::loss(const Batch& batch) {
  require_labels(batch);
  return losses_of(classify(batch, dropout()), batch.labels, at::Reduction::Sum);
}

at::Tensor Classifier::label_losses(const Batch& batch) {
  require_labels(batch);
  return losses_of(classify(batch, dropout()), batch.labels, at::Reduction::None);
}

at::Tensor Classifier::counted_logits(const Batch& batch) {
  require_labels(batch);
  const auto logits = classify(batch, dropout());
  return logits.index_select(0, batch.labels.ge(0).nonzero().squeeze(1).to(logits.device()));
}

at::Tensor Classifier::logits(const Batch& batch, Cache* cache) {
  at::NoGradGuard no_grad;
  if (cache) throw Error(fmt::format("model {} does not generate: it takes no cache", name_));
  Dropout off;
  return classify(batch, off);
}

std::unique_ptr<Cache> Classifier::cache(std::int64_t, std::int64_t) const {
  throw Error(fmt::format("model {} tells classes of whole texts and does not generate", name_));
}

}  // namespace hansa::nn
