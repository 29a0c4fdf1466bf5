#include "nn/frozen_linear.hpp"

#include <optional>

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace hansa::nn {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeldWeight final : torch::CustomClassHolder {  // how a graph keeps a weight that is no tensor
  explicit HeldWeight(const quantised::StoredWeight& w) : weight(w) {}
  quantised::StoredWeight weight;
};

class FrozenLinear : public torch::autograd::Function<FrozenLinear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& bias,
                            const quantised::StoredWeight& stored) {
    context->saved_data["weight"] = c10::IValue::make_capsule(c10::make_intrusive<HeldWeight>(stored));
    const auto weight = stored.borrow(x.scalar_type()).t();
    return bias ? at::addmm(*bias, x, weight) : at::mm(x, weight);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list result(3);
    if (!context->needs_input_grad(0)) return result;
    const auto held = context->saved_data["weight"].toCapsule();
    const auto& stored = static_cast<const HeldWeight&>(*held).weight;
    result[0] = at::mm(gradients[0], stored.borrow(gradients[0].scalar_type()));
    return result;
  }
};

}  // namespace

at::Tensor frozen_linear(const at::Tensor& x, const quantised::StoredWeight& weight, const at::Tensor& bias) {
  auto shape = x.sizes().vec();
  shape.back() = weight.rows();
  const auto rows = x.reshape({-1, x.size(-1)});
  // An undefined tensor must not reach apply(), which asks every tensor for its device.
  const bool apart = bias.defined() && bias.requires_grad();
  const auto optional_bias = bias.defined() && !apart ? std::optional<at::Tensor>(bias) : std::nullopt;
  const auto y = FrozenLinear::apply(rows, optional_bias, weight).view(shape);
  return apart ? y + bias : y;
}

}  // namespace hansa::nn
