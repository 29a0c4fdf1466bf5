#include "tensor/bridge.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa {

at::ScalarType scalar_type_of(DType type) {
  switch (type) {
    case DType::f32: return at::kFloat;
    case DType::f16: return at::kHalf;
    case DType::bf16: return at::kBFloat16;
    case DType::f8e4m3: return at::kFloat8_e4m3fn;
    case DType::i8: return at::kChar;
    case DType::u8: return at::kByte;
    case DType::i32: return at::kInt;
    case DType::i64: return at::kLong;
  }
  throw Error(fmt::format("dtype {} has no counterpart in LibTorch", static_cast<int>(type)));
}

DType dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return DType::f32;
    case at::kHalf: return DType::f16;
    case at::kBFloat16: return DType::bf16;
    case at::kFloat8_e4m3fn: return DType::f8e4m3;
    case at::kChar: return DType::i8;
    case at::kByte: return DType::u8;
    case at::kInt: return DType::i32;
    case at::kLong: return DType::i64;
    default:
      throw Error(fmt::format("tensors of type {} cannot travel; use f32, f16, bf16, f8e4m3, i8, u8, i32 or i64",
                              c10::toString(type)));
  }
}

TensorSpec spec_of(std::string name, const at::Tensor& tensor) {
  return {std::move(name), dtype_of(tensor.scalar_type()), tensor.sizes().vec()};
}

at::Tensor view_as_tensor(std::span<const std::byte> bytes, DType type, at::IntArrayRef shape) {
  const auto needed = raw_code(type, shape.vec()).bytes;
  if (needed != bytes.size()) throw Error(fmt::format("a tensor of {} bytes laid over {} bytes", needed, bytes.size()));
  if (needed == 0) return aligned_empty(type, shape);
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % kPacketAlignment != 0)
    throw Error("a tensor laid over bytes that are not 64-byte aligned; map the file or use AlignedBytes");
  return at::from_blob(const_cast<std::byte*>(bytes.data()), shape, at::TensorOptions().dtype(scalar_type_of(type)));
}

at::Tensor view_as_tensor(const PacketView& packet, const Code& raw) {
  return view_as_tensor(packet.bytes(raw), raw.dtype, raw.shape);
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  if (!tensor.is_contiguous() || !tensor.is_cpu())
    throw Error("bytes asked of a tensor that is not contiguous on the CPU");
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

at::Tensor aligned_empty(DType type, at::IntArrayRef shape) {
  auto tensor = at::empty(shape, at::TensorOptions().dtype(scalar_type_of(type)));
  if (tensor.nbytes() > 0 && reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % kPacketAlignment != 0)
    throw Error(
        "LibTorch's allocator gave memory that is not 64-byte aligned; Hansa needs LibTorch 2.x's default allocator");
  return tensor;
}

}  // namespace hansa
