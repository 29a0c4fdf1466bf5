#include "quantised/stored_weight.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "base/error.hpp"

namespace hansa::quantised {

at::Tensor Workspace::of(std::int64_t rows, std::int64_t columns, at::ScalarType type) {
  const auto wanted = rows * columns * static_cast<std::int64_t>(c10::elementSize(type));
  if (!bytes_.defined() || bytes_.numel() < wanted) {
    bytes_.reset();  // before the larger one
    bytes_ = at::empty({wanted}, at::TensorOptions().dtype(at::kByte).device(device_));
  }
  return bytes_.narrow(0, 0, wanted).view(type).view({rows, columns});
}

StoredWeight::StoredWeight(BaseDtype how, const at::Tensor& weight, std::shared_ptr<Workspace> workspace)
    : workspace_(std::move(workspace)) {
  const auto plain = weight.contiguous();
  switch (how) {
    case BaseDtype::Nf4: held_ = on(to_nf4(plain), device()); return;
    case BaseDtype::Int8: held_ = on(to_int8(plain), device()); return;
    case BaseDtype::Compute: break;
  }
  throw Error("a weight in the compute type is no quantised one");
}

at::Device StoredWeight::device() const { return workspace_ ? workspace_->device() : at::Device(at::kCPU); }

std::int64_t StoredWeight::rows() const {
  if (const auto* nf4 = std::get_if<Nf4>(&held_)) return nf4->rows;
  return std::get<Int8>(held_).codes.size(0);
}
std::int64_t StoredWeight::columns() const {
  if (const auto* nf4 = std::get_if<Nf4>(&held_)) return nf4->columns;
  return std::get<Int8>(held_).codes.size(1);
}
std::size_t StoredWeight::bytes() const {
  if (const auto* nf4 = std::get_if<Nf4>(&held_)) return nf4->bytes();
  return std::get<Int8>(held_).bytes();
}

void StoredWeight::write(const at::Tensor& into) const {
  if (const auto* nf4 = std::get_if<Nf4>(&held_))
    dequantise(*nf4, into);
  else
    dequantise(std::get<Int8>(held_), into);
}

at::Tensor StoredWeight::get(at::ScalarType type) const {
  const at::NoGradGuard no_grad;
  auto weight = at::empty({rows(), columns()}, at::TensorOptions().dtype(type).device(device()));
  write(weight);
  return weight;
}

at::Tensor StoredWeight::borrow(at::ScalarType type) const {
  const at::NoGradGuard no_grad;
  auto weight = workspace_->of(rows(), columns(), type);
  write(weight);
  return weight;
}

std::size_t bytes_of(BaseDtype how, std::int64_t rows, std::int64_t columns, std::size_t compute_bytes) {
  const auto elements = static_cast<std::size_t>(rows * columns);
  const auto parts = [](std::size_t whole, std::size_t part) { return (whole + part - 1) / part; };
  switch (how) {
    case BaseDtype::Compute: return elements * compute_bytes;
    case BaseDtype::Int8: return elements + static_cast<std::size_t>(rows) * sizeof(float);
    case BaseDtype::Nf4: break;
  }
  const auto blocks = parts(elements, Nf4::kBlock);
  return parts(elements, 2) + blocks + (parts(blocks, Nf4::kSpanned) + 1) * sizeof(float);
}

}  // namespace hansa::quantised
