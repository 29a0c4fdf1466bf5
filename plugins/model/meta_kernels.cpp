// Operators that LibTorch knows on the meta device from Python only: tried on the CPU with zeros of the same shapes, for what
// comes out. A tensor of the CPU among those of the meta device is refused, as a GPU would refuse it.
#include <stdexcept>
#include <string>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DispatchKeySet.h>
#include <torch/library.h>

namespace {

at::Tensor on_cpu(const at::Tensor& tensor) {
  return at::zeros(tensor.sizes(), tensor.options().device(at::kCPU).requires_grad(false));
}
at::Tensor on_meta(const at::Tensor& tensor) {
  return at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
}

void by_shape(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto first = stack->size() - schema.arguments().size();
  c10::IValue written;  // in place, or to an argument `out`
  for (std::size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias && alias->isWrite()) written = (*stack)[first + i];
  }
  for (auto i = first; i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    const auto cross = [&](const at::Tensor& tensor) {
      if (!tensor.defined()) return tensor;
      if (!tensor.is_meta()) throw std::runtime_error(schema.name() + ": a tensor on the CPU among others on a device");
      return on_cpu(tensor);
    };
    if (value.isTensor()) {
      value = cross(value.toTensor());
    } else if (value.isOptionalTensorList() || value.isTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& one : value.toListRef())
        list.push_back(one.isNone() ? std::nullopt : std::optional(cross(one.toTensor())));
      value = list;
    }
  }
  op.callBoxed(stack);
  for (auto i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    const auto made = value.toTensor();
    if (!written.isTensor()) {
      value = on_meta(made);
      continue;
    }
    if (written.toTensor().sizes() != made.sizes()) written.toTensor().resize_(made.sizes());
    value = written;
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, Meta, library) {
  for (const auto* name : {"index_select", "bernoulli_.float", "native_layer_norm", "native_layer_norm_backward",
                           "_index_put_impl_", "logical_or.out", "logical_and.out", "logical_not.out", "abs.out",
                           "masked_fill_.Scalar", "logsumexp", "logsumexp.out", "embedding_dense_backward"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&by_shape>());
}
