// Rotary positions (RoFormer, arXiv 2104.09864; the half-split form that Hugging Face checkpoints use). Tables grow with
// the longest position seen. Training thread only.
#pragma once
#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

namespace hansa::nn {

struct RopeSettings {
  struct Llama3 {  // long contexts by slowing the low frequencies down (Llama 3.1)
    double factor = 8, low_frequency_factor = 1, high_frequency_factor = 4, original_max_positions = 8192;
  };
  std::int64_t head_dim = 0;
  double theta = 10000;
  std::optional<Llama3> llama3;
};

at::Tensor rope_frequencies(const RopeSettings&);  // fp32 [head_dim / 2]

class Rope {
 public:
  Rope() = default;
  explicit Rope(const RopeSettings&);
  struct Rows {           // of one batch, for all its layers
    at::Tensor cos, sin;  // [batch or 1, length, 1, head_dim], in the compute type; sin of the first half is negated
  };
  Rows rows(const at::Tensor& positions, at::ScalarType compute);  // i64 [batch, length]
  static at::Tensor rotate(const at::Tensor& x, const Rows&);      // [batch, length, heads, head_dim]

 private:
  at::Tensor frequencies_, cos_, sin_;
};

}  // namespace hansa::nn
