// A linear module whose frozen weight is held in 4 or 8 bits: the weight is made for the product and again for the gradient of
// the input, in the model's one workspace, so that a graph holds none of it. Training thread.
#pragma once
#include <quantised/stored_weight.hpp>

namespace hansa::nn {

// x [..., in] in fp32 or bf16, bias in the same type or undefined: x weightᵀ + bias, with gradients to x and bias.
at::Tensor frozen_linear(const at::Tensor& x, const quantised::StoredWeight& weight, const at::Tensor& bias);

}  // namespace hansa::nn
