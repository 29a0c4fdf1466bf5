// The forward pass of Llama-architecture models (arXiv 2302.13971, 2307.09288): pre-norm blocks of grouped-query attention
// with rotary positions, and SwiGLU.
#pragma once
#include <nn/causal_model.hpp>
#include <nn/rope.hpp>

namespace hansa::llama {

struct Config {
  std::int64_t width = 0, inner = 0, layers = 0, vocabulary = 0, max_positions = 0;
  nn::Heads heads;
  nn::RopeSettings rope;
  double norm_epsilon = 1e-6, initial_deviation = 0.02, attention_dropout = 0;
  bool attention_bias = false, mlp_bias = false, tied_head = false;
};

class Decoder final : public nn::Decoder {
 public:
  explicit Decoder(const Config&);
  const nn::DecoderPlan& plan() const override { return plan_; }
  void bind(nn::Places&) override;
  at::Tensor forward(const nn::Pass&) override;

 private:
  struct Layer {
    nn::Place *input_norm, *q, *k, *v, *o, *post_norm, *gate, *up, *down;
  };
  at::Tensor attend(const Layer&, std::int64_t index, const at::Tensor& x, const nn::Rope::Rows&, const nn::Visibility&,
                    const nn::Pass&) const;
  static at::Tensor feed_forward(const Layer&, const at::Tensor& x, const nn::Pass&);

  Config config_;
  nn::DecoderPlan plan_;
  nn::Rope rope_;
  nn::Place *embedding_ = nullptr, *final_norm_ = nullptr;
  std::vector<Layer> layers_;
};

}  // namespace hansa::llama
