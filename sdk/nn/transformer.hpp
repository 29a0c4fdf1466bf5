// The forward pass of every architecture that a TransformerSpec can describe, by LibTorch's operators and autograd: the
// plain form, which faster ones are tested against. Owned and called by CausalModel, training thread only.
#pragma once
#include <memory>
#include <vector>

#include "nn/architecture.hpp"
#include "nn/causal_model.hpp"
#include "nn/rope.hpp"

namespace hansa::nn {

namespace fast {
class Block;
}

struct BlockPlaces {  // the modules that a BlockSpec names; null where it names none
  const Place *attention_norm = nullptr, *after_attention = nullptr, *mlp_norm = nullptr, *after_mlp = nullptr;
  const Place* attention = nullptr;
  const Place *query = nullptr, *key = nullptr, *value = nullptr, *output = nullptr;
  const Place *query_norm = nullptr, *key_norm = nullptr;
  const Place *gate = nullptr, *up = nullptr, *down = nullptr;
};

struct BlockPass {  // one block's part in a pass
  const Pass& pass;
  const Rope::Rows* turn;  // of queries and keys; null: they are not turned
  const Visibility& visible;
  std::int64_t layer;
  Front front{};
};

// x [batch, length, width] after a block.
at::Tensor block(const BlockSpec&, const BlockPlaces&, const at::Tensor& x, const BlockPass&);

class Transformer final : public Decoder {
 public:
  explicit Transformer(Architecture);
  ~Transformer() override;
  const DecoderPlan& plan() const override { return architecture_.plan; }
  void bind(Places&) override;
  at::Tensor forward(const Pass&) override;
  // With what a soft prompt stands for before each row.
  at::Tensor forward_with_prompt(const Pass&);

 private:
  std::int64_t virtual_tokens() const;
  Batch with_front(const Pass&, const Front&) const;
  at::Tensor embed(const Pass&) const;
  std::vector<Rope::Rows> turns(const Pass&) const;

  Architecture architecture_;
  std::vector<Rope> ropes_;
  std::vector<BlockPlaces> blocks_;
  std::vector<std::unique_ptr<fast::Block>> fast_;  // beside blocks_; null: this block knows the plain form alone
  const Place *tokens_ = nullptr, *positions_ = nullptr, *types_ = nullptr, *embedding_norm_ = nullptr,
              *project_in_ = nullptr, *final_norm_ = nullptr, *project_out_ = nullptr;
};

// A model whose family is a function from config.json to an Architecture.
class TransformerModel : public CausalModel {
 public:
  TransformerModel(std::string name, std::vector<std::string> model_types,
                   Architecture (*architecture)(const std::filesystem::path& checkpoint), Host* host = nullptr);
};

}  // namespace hansa::nn
