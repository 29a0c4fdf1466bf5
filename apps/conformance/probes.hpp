// What a component must not touch, measured from outside: memory, threads, the global generators, its inputs. One thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <hansa/component.hpp>

namespace hansa::conformance {

std::uint64_t heap_in_use();  // bytes
std::size_t threads();        // of this process

// Bytes of tensors alive and their peak, from LibTorch's allocator for as long as this object lives.
class TensorMemory {
 public:
  TensorMemory();
  ~TensorMemory();
  TensorMemory(const TensorMemory&) = delete;
  TensorMemory& operator=(const TensorMemory&) = delete;
  std::uint64_t alive() const;  // of those allocated since
  std::uint64_t peak() const;

 private:
  struct Counter;
  std::unique_ptr<Counter> counter_;
};

// The state of the generators that everybody shares: LibTorch's, and rand().
class GlobalGenerators {
 public:
  GlobalGenerators();                        // sets both to a known state
  explicit GlobalGenerators(unsigned seed);  // to another one
  std::string touched() const;               // which of them moved since; "": none
 private:
  unsigned seed_;
  at::Tensor before_;
};

// Tensors lent for one call. After it: unchanged to the bit, and nobody holds one.
class Lent {
 public:
  at::Tensor add(const at::Tensor& values);  // a copy with memory of its own; hand this to the component
  void check(const std::string& whose);  // throws Broken: "<whose> was written to", "… is still held". Ends the loans

 private:
  struct One {
    at::Tensor copy, before;
    std::weak_ptr<at::Tensor> memory;
  };
  std::vector<One> lent_;
};

// A component's saved state, in memory.
class SavedState final : public StateWriter, public StateReader {
 public:
  void put(std::string_view key, const at::Tensor& value) override;
  void put(std::string_view key, std::string_view bytes) override;
  bool has(std::string_view key) const override;
  at::Tensor tensor(std::string_view key) const override;
  std::string bytes(std::string_view key) const override;

 private:
  std::vector<std::pair<std::string, at::Tensor>> tensors_;
  std::vector<std::pair<std::string, std::string>> texts_;
};

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed, double sigma = 1);  // fp32, normal
bool same_bits(const at::Tensor&, const at::Tensor&);
// "" when all are equal to the bit; else the first that differs, and by how much.
std::string difference(const NamedTensors& a, const NamedTensors& b);
// The largest |a - b| over the largest |b| (or 1); infinite for other shapes.
double relative_error(const at::Tensor& a, const at::Tensor& b);
at::Tensor number(double);                                               // for traces
std::string shapes_text(const std::vector<std::vector<std::int64_t>>&);  // "[4, 8], [6]"

}  // namespace hansa::conformance
