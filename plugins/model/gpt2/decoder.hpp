// The forward pass of GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks with LayerNorm, full attention and a
// tanh-GELU feed-forward part. Its linear weights are stored [in, out].
#pragma once
#include <nn/causal_model.hpp>

namespace hansa::gpt2 {

struct Config {
  std::int64_t width = 0, inner = 0, layers = 0, heads = 0, vocabulary = 0, max_positions = 0;
  double norm_epsilon = 1e-5, initial_deviation = 0.02;
  double embedding_dropout = 0.1, attention_dropout = 0.1, residual_dropout = 0.1;
  bool scale_attention = true, scale_by_inverse_layer = false, tied_head = true;
};

class Decoder final : public nn::Decoder {
 public:
  explicit Decoder(const Config&);
  const nn::DecoderPlan& plan() const override { return plan_; }
  void bind(nn::Places&) override;
  at::Tensor forward(const nn::Pass&) override;

 private:
  struct Layer {
    nn::Place *norm_1, *attention_in, *attention_out, *norm_2, *inner, *outer;
  };
  at::Tensor attend(const Layer&, std::int64_t index, const at::Tensor& x, const nn::Visibility&,
                    const nn::Pass&) const;
  at::Tensor feed_forward(const Layer&, const at::Tensor& x, const nn::Pass&) const;

  Config config_;
  nn::DecoderPlan plan_;
  nn::Place *tokens_ = nullptr, *positions_ = nullptr, *final_norm_ = nullptr;
  std::vector<Layer> layers_;
};

}  // namespace hansa::gpt2
