#include "hf/tensors.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

namespace hansa::hf {
namespace {

// The bytes of a StoredTensor lie in a shared map of its file: the pages that were read need not stay in this process too.
void let_go(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(bytes.data()), start = first / page * page;
  madvise(const_cast<std::byte*>(bytes.data()) - (first - start), first - start + bytes.size(), MADV_DONTNEED);
}

at::Tensor copy_of(const StoredTensor& stored, at::ScalarType type) {
  auto tensor = at::empty(stored.shape, at::TensorOptions().dtype(type));
  if (stored.bytes.empty()) return tensor;
  std::memcpy(tensor.data_ptr(), stored.bytes.data(), stored.bytes.size());
  let_go(stored.bytes);
  return tensor;
}

at::ScalarType stored_type(const StoredTensor& stored) {
  if (stored.dtype) return scalar_type_of(*stored.dtype);
  throw Error(
      fmt::format("the tensor '{}' is stored as {}, which is not supported; convert the checkpoint to float32 or "
                  "bfloat16",
                  stored.name, stored.stored_dtype));
}

// Whole numbers where weights are asked for are codes of a quantised checkpoint: taken as numbers they would make nonsense.
at::ScalarType stored_type(const StoredTensor& stored, at::ScalarType wanted) {
  const auto type = stored_type(stored);
  if (!c10::isFloatingType(wanted) || c10::isFloatingType(type)) return type;
  throw Error(
      fmt::format("the tensor '{}' is stored as {}, whole numbers where weights are wanted; if the checkpoint is "
                  "quantised, convert it to float32 or bfloat16",
                  stored.name, stored.stored_dtype));
}

}  // namespace

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
  throw Error("a dtype without a tensor type");
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
    default: throw Error(fmt::format("tensors of type {} are not supported; convert it to float", c10::toString(type)));
  }
}

at::Tensor load_tensor(const StoredTensor& stored) {
  return copy_of(stored, stored.stored_dtype == "BOOL" ? at::kBool : stored_type(stored));
}

at::Tensor load_tensor(const StoredTensor& stored, DType wanted) {
  const at::NoGradGuard no_grad;
  const auto type = stored_type(stored, scalar_type_of(wanted));
  if (type == scalar_type_of(wanted)) return copy_of(stored, type);
  auto tensor = at::empty(stored.shape, at::TensorOptions().dtype(scalar_type_of(wanted)));
  load_tensor(stored, tensor);
  return tensor;
}

void load_tensor(const StoredTensor& stored, const at::Tensor& into) {
  const at::NoGradGuard no_grad;
  const auto type = stored_type(stored, into.scalar_type());
  if (stored.bytes.empty()) return;
  // Straight from the file, unless its numbers lie askew.
  if (reinterpret_cast<std::uintptr_t>(stored.bytes.data()) % c10::elementSize(type) != 0) {
    into.copy_(copy_of(stored, type));
    return;
  }
  auto* bytes = const_cast<std::byte*>(stored.bytes.data());  // only read
  into.copy_(at::from_blob(bytes, stored.shape, at::TensorOptions().dtype(type)));
  let_go(stored.bytes);
}

at::Tensor load_tensor(const Checkpoint& checkpoint, std::string_view name, DType wanted) {
  try {
    return load_tensor(checkpoint.at(name), wanted);
  } catch (const Error& problem) {
    throw Error(fmt::format("{}: {}", checkpoint.directory().string(), problem.what()));
  }
}

void write_tensor(SafetensorsWriter& writer, std::string_view name, const at::Tensor& tensor) {
  const at::NoGradGuard no_grad;
  const auto& spec = writer.spec(name);
  if (tensor.sizes() != at::IntArrayRef(spec.shape)) {
    throw Error(fmt::format("the tensor '{}' has another shape than was announced", name));
  }
  const auto ready = tensor.detach().to(at::kCPU, scalar_type_of(spec.dtype)).contiguous();
  writer.write(name, {static_cast<const std::byte*>(ready.data_ptr()), ready.nbytes()});
}

void save_tensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors)
    specs.push_back({name, dtype_of(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(path, std::move(specs));
  for (const auto& [name, tensor] : tensors) write_tensor(writer, name, tensor);
  writer.finish();
}

}  // namespace hansa::hf
