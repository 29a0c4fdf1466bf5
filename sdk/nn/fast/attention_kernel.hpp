// Attention of a few rows of queries in one go, for bf16 on processors that multiply pairs of bf16: products, softmax and its
// slope without a product of LibTorch in between, scores in fp32 in a core's cache. Called by attention_tiles.cpp, which does
// the same by LibTorch's products elsewhere. Pure functions on the caller's memory; any thread.
#pragma once
#include <cstdint>

#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {

// A matrix [keys, dim] as the second factor of products: 32-bit words of two neighbours along what is summed over. Keys count in
// multiples of kKeyStep; what is beyond the last is 0.
struct Packed {
  std::uint32_t* turned = nullptr;  // [keys / kKeyStep, dim / 2, kKeyStep]: sums over dim
  std::uint32_t* pairs = nullptr;   // [keys / 2, dim]: sums over keys
};
constexpr std::int64_t kKeyStep = 64;

struct AttentionRows {  // rows of one key-value head, at most kMostRows
  static constexpr std::int64_t kMostRows = 64;
  const Half *q = nullptr, *d_out = nullptr;  // [rows, dim]
  Packed k, v;                                // of [keys, dim]
  std::int64_t rows = 0, dim = 0, keys = 0;   // dim in multiples of 16
  const std::int32_t* const* low = nullptr;   // one a row: it sees keys [*low, *high)
  const std::int32_t* const* high = nullptr;
  float* log_sum = nullptr;  // one a row
  float scale = 1;
  Half *out = nullptr, *dq = nullptr;  // [rows, dim]
  float *dk = nullptr, *dv = nullptr;  // [keys, dim], added to
  float* scratch = nullptr;            // the kernel's scratch(keys, dim) numbers
};

struct AttentionKernel {
  void (*pack)(const Half* matrix, std::int64_t count, std::int64_t keys, std::int64_t dim, const Packed&);
  void (*forward)(const AttentionRows&);
  void (*backward)(const AttentionRows&);
  void (*round)(const float* from, Half* to, std::int64_t count);
  std::int64_t (*scratch)(std::int64_t keys, std::int64_t dim);  // of one thread, without dk and dv
};

const AttentionKernel* attention_kernel();  // null where the processor has no such products

extern const AttentionKernel kAvx512Attention;

}  // namespace hansa::nn::fast
