#include "nn/fast/buffers.hpp"

#include <ATen/ops/empty.h>

namespace hansa::nn::fast {

at::Tensor Buffers::get(std::string_view name, at::IntArrayRef shape, at::ScalarType type) {
  auto& buffer = buffers_.try_emplace(std::string(name)).first->second;
  std::int64_t count = 1;
  for (const auto side : shape) count *= side;
  if (!buffer.defined() || buffer.numel() < count || buffer.scalar_type() != type)
    buffer = at::empty({count}, at::TensorOptions().dtype(type));
  return buffer.narrow(0, 0, count).view(shape);
}

}  // namespace hansa::nn::fast
