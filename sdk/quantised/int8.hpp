// 8 bits a value: round(127 value / largest absolute value of the row). The same numbers as bitsandbytes' int8_vectorwise_quant
// and int8_vectorwise_dequant. Values; the loops run on LibTorch's pool. Throws hansa::Error where a value is not finite.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace hansa::quantised {

struct Int8 {
  at::Tensor codes;    // i8 [rows, columns]
  at::Tensor largest;  // f32 [rows]
  std::size_t bytes() const { return codes.nbytes() + largest.nbytes(); }
};

Int8 to_int8(const at::Tensor& weight);  // fp32 [rows, columns], contiguous, on the CPU
Int8 on(const Int8&, at::Device);        // the same, held there
// `into` is fp32, or bf16 rounded to the nearest; contiguous, of the same shape, on the same device. On the CPU by a loop of its
// own, elsewhere by LibTorch's operators, which give the same bits.
void dequantise(const Int8&, const at::Tensor& into);
void dequantise_by_operators(const Int8&, const at::Tensor& into);

}  // namespace hansa::quantised
