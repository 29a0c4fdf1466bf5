#include "nn/label_losses.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

namespace hansa::nn {

namespace {

class Chunks {  // of the logits, in fp32, one at a time in the same memory
 public:
  Chunks(const at::Tensor& hidden, const at::Tensor& weight, std::int64_t most, double soft_cap)
      : hidden_(hidden), transposed_(weight.t()), most_(std::min(most, hidden.size(0))), soft_cap_(soft_cap) {
    products_ = at::empty({most_, weight.size(0)}, hidden.options());
    half_ = hidden.scalar_type() != at::kFloat;
    real_ = half_ ? at::empty(products_.sizes(), hidden.options().dtype(at::kFloat)) : products_;
  }
  template <class Body>
  void each(const Body& body) {
    for (std::int64_t first = 0; first < hidden_.size(0); first += most_) {
      const auto count = std::min(most_, hidden_.size(0) - first);
      auto products = products_.narrow(0, 0, count), real = real_.narrow(0, 0, count);
      at::mm_out(products, hidden_.narrow(0, first, count), transposed_);
      if (half_) real.copy_(products);
      if (soft_cap_ != 0) real.div_(soft_cap_).tanh_().mul_(soft_cap_);
      body(first, count, real);
    }
  }
  // Gradients of the capped logits, made from `real`, as those of the products, in the compute type.
  at::Tensor back(const at::Tensor& gradient) const {
    if (!half_) return gradient;
    auto narrow = products_.narrow(0, 0, gradient.size(0));
    narrow.copy_(gradient);
    return narrow;
  }
  double soft_cap() const { return soft_cap_; }

 private:
  const at::Tensor& hidden_;
  at::Tensor transposed_, products_, real_;
  std::int64_t most_;
  double soft_cap_;
  bool half_ = false;
};

class LabelLosses : public torch::autograd::Function<LabelLosses> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& labels, std::int64_t chunk_rows,
                            double soft_cap) {
    const at::NoGradGuard no_grad;
    auto sums = at::empty({hidden.size(0)}, hidden.options().dtype(at::kFloat));  // log of the sum of exponentials
    auto nats = at::empty_like(sums);
    if (hidden.size(0) > 0)
      Chunks(hidden, weight, chunk_rows, soft_cap)
          .each([&](std::int64_t first, std::int64_t count, at::Tensor& logits) {
            const auto of_label = logits.gather(1, labels.narrow(0, first, count).unsqueeze(1)).squeeze(1);
            auto sum = sums.narrow(0, first, count);
            sum.copy_(at::logsumexp(logits, 1));
            nats.narrow(0, first, count).copy_(sum - of_label);
          });
    context->save_for_backward({hidden, weight, labels, sums});
    context->saved_data["chunk_rows"] = chunk_rows;
    context->saved_data["soft_cap"] = soft_cap;
    return nats;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = context->get_saved_variables();
    const auto &hidden = saved[0], &weight = saved[1], &labels = saved[2], &sums = saved[3];
    const auto of_rows = gradients[0].to(at::kFloat);
    auto d_hidden = context->needs_input_grad(0) ? at::empty_like(hidden) : at::Tensor();
    auto d_weight =
        context->needs_input_grad(1) ? at::zeros(weight.sizes(), weight.options().dtype(at::kFloat)) : at::Tensor();
    const double cap = context->saved_data["soft_cap"].toDouble();
    if (hidden.size(0) > 0) {
      Chunks chunks(hidden, weight, context->saved_data["chunk_rows"].toInt(), cap);
      chunks.each([&](std::int64_t first, std::int64_t count, at::Tensor& logits) {
        const auto slope = cap == 0 ? at::Tensor() : (logits / cap).square_().neg_().add_(1);
        logits.sub_(sums.narrow(0, first, count).unsqueeze(1)).exp_();
        const auto index = labels.narrow(0, first, count).unsqueeze(1);
        logits.scatter_add_(1, index, at::full_like(index, -1, logits.options()));
        logits.mul_(of_rows.narrow(0, first, count).unsqueeze(1));
        if (slope.defined()) logits.mul_(slope);
        const auto back = chunks.back(logits);
        if (d_hidden.defined()) {
          auto part = d_hidden.narrow(0, first, count);
          at::mm_out(part, back, weight);
        }
        if (d_weight.defined()) d_weight.add_(at::mm(back.t(), hidden.narrow(0, first, count)));
      });
    }
    if (d_weight.defined()) d_weight = d_weight.to(weight.scalar_type());
    return {d_hidden, d_weight, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor chunked_label_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                std::int64_t chunk_rows, double soft_cap) {
  return LabelLosses::apply(hidden, weight, labels, chunk_rows, soft_cap);
}

}  // namespace hansa::nn
