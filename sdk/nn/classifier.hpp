// Encoders that tell a class for each row: the output at the first token, a dense layer, the head. A family's plugin supplies
// a function from config.json. Training thread only; throws hansa::Error. What CausalModel says of reading, injections and
// merging holds here; a cache is refused, and so are labels by token.
#pragma once
#include <optional>

#include "nn/causal_model.hpp"
#include "nn/transformer.hpp"

namespace hansa::nn {

struct ClassifierSpec {  // logits = head(dropout(squash(dense(first))))
  enum class Squash : std::uint8_t { Tanh, Relu };
  std::string dense, head;  // modules
  Squash squash = Squash::Tanh;
  double dropout = 0;
  bool drops_first = false;  // dropout before the dense layer too
};

struct EncoderArchitecture {
  Architecture body;  // its plan's head is the classifier's
  ClassifierSpec classifier;
};

struct ClassifierParams {
  std::optional<std::int64_t> classes;
};

class Classifier : public CausalModel {
 public:
  using Read = EncoderArchitecture (*)(const std::filesystem::path& checkpoint, const ClassifierParams&);
  Classifier(std::string name, std::vector<std::string> model_types, Read, const ClassifierParams&,
             Host* host = nullptr);

  at::Tensor loss(const Batch&) override;
  at::Tensor label_losses(const Batch&) override;  // [batch]
  std::unique_ptr<Cache> cache(std::int64_t batch, std::int64_t most) const override;
  at::Tensor logits(const Batch&, Cache*) override;  // [batch, classes]
  at::Tensor counted_logits(const Batch&) override;  // of the rows that count

 private:
  at::Tensor classify(const Batch&, Dropout&);
  void require_labels(const Batch&) const;
  std::int64_t classes() const;
  std::string name_;
};

}  // namespace hansa::nn
