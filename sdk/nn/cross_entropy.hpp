// Cross-entropy over a large vocabulary without holding all logits (the idea of Liger Kernel, arXiv 2410.10989): the
// gradient is computed chunk by chunk in the forward pass. Training thread only.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <hansa/opening.hpp>

namespace hansa::nn {

// hidden [rows, width] and weight [vocabulary, width] of one type (fp32 or bf16); labels i64 [rows], each in the
// vocabulary. soft_cap: logits become cap * tanh(logit / cap); 0: as they are. The sum of -log softmax(hidden weightᵀ)[label],
// an fp32 scalar with a graph to hidden and weight; at most chunk_rows rows of logits are held at once. Fast: softmax and its
// gradient in one pass over the logits, in their own type, or without holding any (head_kernel.hpp) where the weight is frozen,
// the processor multiplies pairs of bf16 and rows are enough for every core; soft caps go the plain way.
at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                 std::int64_t chunk_rows, double soft_cap = 0, Kernels = Kernels::Fast);
std::int64_t default_chunk_rows(std::int64_t vocabulary);

}  // namespace hansa::nn
