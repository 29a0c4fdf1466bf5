#include "nn/low_rank.hpp"

#include <optional>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

namespace hansa::nn {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class LowRankLinear : public torch::autograd::Function<LowRankLinear> {
 public:
  // The order of tensors is the numbering of needs_input_grad, which counts defined ones only: the optional bias is last.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& seen, const at::Tensor& A,
                            const at::Tensor& B, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            double scale) {
    const auto type = x.scalar_type();
    const auto a = A.to(type);
    const auto b = (B.t() * scale).to(type).contiguous();  // [r, out]: the layout in which all its products are fast
    const auto inner = at::mm(seen, a.t());
    auto y = bias ? at::addmm(*bias, x, weight.t()) : at::mm(x, weight.t());
    y.addmm_(inner, b);
    context->save_for_backward({seen, weight, a, b, inner});
    context->saved_data["scale"] = scale;
    context->saved_data["master"] = static_cast<std::int64_t>(A.scalar_type());
    context->saved_data["apart"] = !seen.is_same(x);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &seen = saved[0], &weight = saved[1], &a = saved[2], &b = saved[3], &inner = saved[4];
    const auto dy = gradients[0].contiguous();
    const auto master = static_cast<at::ScalarType>(context->saved_data["master"].toInt());
    const bool apart = context->saved_data["apart"].toBool();
    const auto d_inner = at::mm(dy, b.t());
    variable_list result(7);
    if (context->needs_input_grad(0)) {
      result[0] = at::mm(dy, weight);
      if (!apart) result[0].addmm_(d_inner, a);
    }
    if (apart && context->needs_input_grad(1)) result[1] = at::mm(d_inner, a);
    if (context->needs_input_grad(2)) result[2] = at::mm(d_inner.t(), seen).to(master);
    if (context->needs_input_grad(3))
      result[3] = at::mm(inner.t(), dy).to(master).mul_(context->saved_data["scale"].toDouble()).t().contiguous();
    return result;
  }
};

}  // namespace

at::Tensor low_rank_linear(const at::Tensor& x, const at::Tensor& seen, const at::Tensor& weight,
                           const at::Tensor& bias, const at::Tensor& A, const at::Tensor& B, double scale) {
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  const auto rows = x.reshape({-1, x.size(-1)});
  const auto seen_rows = seen.is_same(x) ? rows : seen.reshape({-1, x.size(-1)});
  // An undefined tensor must not reach apply(), which asks every tensor for its device.
  const auto optional_bias = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  return LowRankLinear::apply(rows, seen_rows, A, B, weight, optional_bias, scale).view(shape);
}

}  // namespace hansa::nn
