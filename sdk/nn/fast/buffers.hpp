// Memory that passes use again. Owned by a model's fast form; training thread only.
#pragma once
#include <map>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

namespace hansa::nn::fast {

// Buffers by name, as large as the largest request so far.
class Buffers {
 public:
  at::Tensor get(std::string_view name, at::IntArrayRef shape, at::ScalarType);

 private:
  std::map<std::string, at::Tensor, std::less<>> buffers_;
};

}  // namespace hansa::nn::fast
