// Between Hansa's torch-free types and LibTorch: dtypes, and tensors over bytes that stand elsewhere (a mapped packet).
// Any thread; stateless. Throws Error for what has no counterpart.
#pragma once
#include <cstddef>
#include <span>
#include <string>

#include <ATen/core/Tensor.h>
#include <hansa/types.hpp>

#include "tensor/packet.hpp"

namespace hansa {

at::ScalarType scalar_type_of(DType);
DType dtype_of(at::ScalarType);
TensorSpec spec_of(std::string name, const at::Tensor&);

// A tensor over these bytes: no copy, no ownership (they must outlive it), never to be written to. CPU, contiguous.
// Throws Error unless the length fits the shape and the address is 64-byte aligned: sums depend on the alignment.
at::Tensor view_as_tensor(std::span<const std::byte> bytes, DType, at::IntArrayRef shape);
at::Tensor view_as_tensor(const PacketView&, const Code& raw);
std::span<const std::byte> bytes_of(const at::Tensor&);  // of a contiguous CPU tensor; valid while the tensor lives

at::Tensor aligned_empty(DType, at::IntArrayRef shape);  // fresh, contiguous, CPU, 64-byte aligned, not zeroed

}  // namespace hansa
