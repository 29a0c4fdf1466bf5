// A frozen linear module with a low-rank pair beside it, forward and backward in one piece: autograd's own form of the thin
// products is several times slower on a CPU (the layout of a factor decides), and adds passes over the output.
#pragma once
#include <ATen/core/Tensor.h>

namespace hansa::nn {

// x [..., in] in the compute type, weight [out, in] and bias (or undefined) frozen in it; A [r, in], B [out, r] of any
// floating type. seen: x after dropout, or x itself.
// y = x weightᵀ + bias + scale (seen Aᵀ) Bᵀ, with gradients to x, seen, A and B.
at::Tensor low_rank_linear(const at::Tensor& x, const at::Tensor& seen, const at::Tensor& weight,
                           const at::Tensor& bias, const at::Tensor& A, const at::Tensor& B, double scale);

}  // namespace hansa::nn
