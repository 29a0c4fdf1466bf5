// Between safetensors files and at::Tensor. CPU tensors, contiguous. Throws Error with the tensor's name.
#pragma once
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "hf/safetensors.hpp"

namespace hansa::hf {

at::ScalarType scalar_type_of(DType type);
DType dtype_of(at::ScalarType type);  // throws for a type that does not travel

// A copy in memory of its own (64-byte aligned, as LibTorch allocates it), in the wanted dtype. What is stored as F64 or as
// another type that we do not know is refused by name, and so are whole numbers where others are wanted.
at::Tensor load_tensor(const StoredTensor& stored, DType wanted);
at::Tensor load_tensor(const StoredTensor& stored);  // as stored; BOOL gives a bool tensor
// Into a tensor of the same shape, of any strides and type: no other copy is made.
void load_tensor(const StoredTensor& stored, const at::Tensor& into);
at::Tensor load_tensor(const Checkpoint& checkpoint, std::string_view name, DType wanted);

void write_tensor(SafetensorsWriter& writer, std::string_view name,
                  const at::Tensor& tensor);  // in the announced dtype
// All at once; each in its own dtype.
void save_tensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace hansa::hf
