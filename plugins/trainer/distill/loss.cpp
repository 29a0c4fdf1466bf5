#include "loss.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

namespace hansa::distill {

namespace {

constexpr std::int64_t kRows = 256;  // of a chunk

class Weighted : public torch::autograd::Function<Weighted> {  // a sum whose gradient is known already
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& logits, const at::Tensor& sum,
                            const at::Tensor& gradient) {
    context->save_for_backward({gradient});
    return sum.clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    return {context->get_saved_variables()[0] * gradients[0], at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Losses mixed_loss(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels, const Mixture& how) {
  const auto T = how.temperature;
  Losses result;
  at::Tensor gradient, total;
  {
    const at::NoGradGuard no_grad;
    const auto logits = student.detach();
    gradient = at::empty_like(logits);
    double sum = 0;
    for (std::int64_t first = 0; first < logits.size(0); first += kRows) {
      const auto count = std::min(kRows, logits.size(0) - first);
      const auto s = logits.narrow(0, first, count), t = teacher.narrow(0, first, count);
      const auto index = labels.narrow(0, first, count).unsqueeze(1);
      const auto plain = at::log_softmax(s, 1), q = at::log_softmax(s / T, 1), p = at::log_softmax(t / T, 1);
      const auto shares = p.exp();
      const double hard = -plain.gather(1, index).sum(at::kDouble).item<double>();
      const double soft = (shares * (p - q)).sum(at::kDouble).item<double>();
      auto part = gradient.narrow(0, first, count);
      part.copy_((q.exp() - shares) * (how.weight * T));
      auto of_label = plain.exp();
      of_label.scatter_add_(1, index, at::full_like(index, -1, of_label.options()));
      part.add_(of_label, 1 - how.weight);
      result.hard += hard;
      result.soft += soft;
      sum += (1 - how.weight) * hard + how.weight * T * T * soft;
    }
    total = at::full({}, sum, logits.options());
  }
  result.sum = Weighted::apply(student, total, gradient);
  return result;
}

}  // namespace hansa::distill
