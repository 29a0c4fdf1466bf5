// Cross-entropy over a vocabulary for a few rows in one go, for bf16 on processors that multiply pairs of bf16: as attention
// does, the softmax is taken block by block with a running maximum (arXiv 1805.02867, 2205.14135), so that logits never leave a
// core's cache and the weight is packed there, once a block. Called by cross_entropy.cpp, which takes LibTorch's products
// elsewhere. Pure functions on the caller's memory; any thread.
#pragma once
#include <cstdint>

#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {

struct HeadRows {
  static constexpr std::int64_t kMostRows = 64;
  const Half *hidden = nullptr, *weight = nullptr;  // [rows, dim], [vocabulary, dim]
  const std::int64_t* labels = nullptr;             // [rows], each in the vocabulary
  std::int64_t rows = 0, dim = 0, vocabulary = 0;   // dim in multiples of 16
  double* nats = nullptr;                           // [rows]: -log softmax(hidden weightᵀ)[label]
  Half* d_hidden = nullptr;                         // [rows, dim]: the gradient of their sum; null: not wanted
  float* scratch = nullptr;                         // the kernel's scratch(dim) numbers
};

struct HeadKernel {
  void (*rows)(const HeadRows&);
  std::int64_t (*scratch)(std::int64_t dim);  // of one thread
};

const HeadKernel* head_kernel();  // null where the processor has no such products

extern const HeadKernel kAvx512Head;

}  // namespace hansa::nn::fast
