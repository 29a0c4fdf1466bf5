// A frozen weight [out, in] in quantised form, as the places of a model hold it. Immutable, cheap to copy: copies share the
// bytes. Any thread may read; the workspace of borrow() belongs to the model's one thread.
#pragma once
#include <memory>
#include <variant>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <hansa/opening.hpp>

#include "quantised/int8.hpp"
#include "quantised/nf4.hpp"

namespace hansa::quantised {

// Memory for one dequantised weight at a time, as large as the largest that was asked for. A model has one.
class Workspace {
 public:
  explicit Workspace(at::Device device = at::kCPU) : device_(device) {}
  at::Device device() const { return device_; }
  at::Tensor of(std::int64_t rows, std::int64_t columns, at::ScalarType);  // good until the next call

 private:
  at::Device device_;
  at::Tensor bytes_;
};

class StoredWeight {
 public:
  StoredWeight() = default;
  // `how` is not Compute; the weight is fp32 [out, in] on the CPU. It is held where the workspace is. Throws hansa::Error
  // where a value is not finite.
  StoredWeight(BaseDtype how, const at::Tensor& weight, std::shared_ptr<Workspace>);
  bool defined() const { return !std::holds_alternative<std::monostate>(held_); }
  std::int64_t rows() const;
  std::int64_t columns() const;
  std::size_t bytes() const;
  at::Device device() const;
  // In fp32 or bf16, where it is held: in memory of its own, or in the workspace, where the next borrow() of any of the
  // model's weights ends it.
  at::Tensor get(at::ScalarType) const;
  at::Tensor borrow(at::ScalarType) const;

 private:
  void write(const at::Tensor& into) const;
  std::variant<std::monostate, Nf4, Int8> held_;
  std::shared_ptr<Workspace> workspace_;
};

// What a weight takes in memory; where `how` is Compute, in a type of so many bytes.
std::size_t bytes_of(BaseDtype how, std::int64_t rows, std::int64_t columns, std::size_t compute_bytes);

}  // namespace hansa::quantised
