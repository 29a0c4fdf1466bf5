// For codecs that leave some tensors alone: a chain hands every part of one stage to the next, and positions or codes of an
// earlier stage (whole numbers) are nothing to quantise. The tensor itself is then the one part. Pure, any thread.
//
//   SizePlan plan(const TensorSpec& in) const override { if (as_is::whole(in.dtype)) return as_is::plan(in); … }
#pragma once
#include <stdexcept>

#include <hansa/compressor.hpp>

namespace hansa::as_is {

constexpr bool whole(DType type) {
  return type == DType::i8 || type == DType::u8 || type == DType::i32 || type == DType::i64;
}
inline bool whole(at::ScalarType type) {
  return type == at::kChar || type == at::kByte || type == at::kInt || type == at::kLong;
}

inline SizePlan plan(const TensorSpec& in) {
  const auto bytes = static_cast<std::uint64_t>(in.elements()) * size_of(in.dtype);
  return {{in}, bytes, bytes};
}
inline Encoded encode(const at::Tensor& in) { return {{in.contiguous()}, ""}; }
inline at::Tensor decode(const Encoded& encoded, const TensorSpec& out) {  // of a whole type
  const auto type = out.dtype == DType::i8    ? at::kChar
                    : out.dtype == DType::u8  ? at::kByte
                    : out.dtype == DType::i32 ? at::kInt
                                              : at::kLong;
  if (encoded.parts.size() != 1 || !encoded.header.empty() || encoded.parts[0].scalar_type() != type ||
      encoded.parts[0].numel() != out.elements())
    throw std::invalid_argument("whole numbers pass as one part as large as the tensor");
  return encoded.parts[0].contiguous().view(out.shape);
}

}  // namespace hansa::as_is
