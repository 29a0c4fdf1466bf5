// NF4 (QLoRA, arXiv 2305.14314): each block of 64 values is divided by its largest absolute value and rounded to one of 16
// levels; the blocks' largest values, less their mean, are themselves held in 8 bits, 256 of them by one number. All of
// it is bit for bit what bitsandbytes' quantize_4bit(blocksize=64, compress_statistics=True, quant_type="nf4") makes on the
// CPU; the mean is LibTorch's, whose last digit can depend on the number of threads and on the processor.
//
// Values: no thread of their own; the loops run on LibTorch's pool. Throws hansa::Error where a value is not finite.
#pragma once
#include <array>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace hansa::quantised {

struct Nf4 {
  static constexpr std::int64_t kBlock = 64;     // values to a scale, row after row
  static constexpr std::int64_t kSpanned = 256;  // scales to a span
  std::int64_t rows = 0, columns = 0;
  at::Tensor codes;   // u8, two values to a byte, the first in the upper half
  at::Tensor scales;  // u8, one a block: which entry of dynamic_map()
  at::Tensor spans;   // f32, one for kSpanned scales
  float offset = 0;   // scale of block b: dynamic_map()[scales[b]] * spans[b / kSpanned] + offset
  std::size_t bytes() const { return codes.nbytes() + scales.nbytes() + spans.nbytes() + sizeof offset; }
};

const std::array<float, 16>& nf4_levels();
// The 256 numbers of the dynamic 8-bit type (arXiv 1511.04561), ascending.
const std::array<float, 256>& dynamic_map();

Nf4 to_nf4(const at::Tensor& weight);  // fp32 [rows, columns], contiguous, on the CPU
Nf4 on(const Nf4&, at::Device);        // the same, held there
// `into` is fp32, or bf16 rounded to the nearest; contiguous, of the same shape, on the same device. On the CPU by a loop of its
// own, elsewhere by LibTorch's operators, which give the same bits.
void dequantise(const Nf4&, const at::Tensor& into);
void dequantise_by_operators(const Nf4&, const at::Tensor& into);

}  // namespace hansa::quantised
