// Cross-entropy label by label over a large vocabulary, without holding all logits: the backward pass computes each chunk's
// again, scaled by each row's own gradient. For objectives that weigh labels unlike (preferences): where all weigh alike,
// cross_entropy.hpp is cheaper. Training thread only.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace hansa::nn {

// As chunked_cross_entropy, but [rows]: of each row -log softmax(hidden weightᵀ)[label], fp32, with a graph to hidden and
// weight.
at::Tensor chunked_label_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                std::int64_t chunk_rows, double soft_cap = 0);

}  // namespace hansa::nn
