// A block of LibTorch's operators whose activations are not kept: the backward pass goes forward again. What fast/blocks.hpp does
// for its own blocks. Training thread.
#pragma once
#include <span>

#include "nn/transformer.hpp"

namespace hansa::nn {

// block(spec, places, x, at), with the same values, gradients and dropout masks; x and what `at` points to are kept.
at::Tensor recomputed_block(const BlockSpec& spec, const BlockPlaces& places, const at::Tensor& x, const BlockPass& at);

}  // namespace hansa::nn
