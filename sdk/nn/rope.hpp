// Rotary positions (RoFormer, arXiv 2104.09864; the half-split form that Hugging Face checkpoints use) and the ways to
// stretch them to longer contexts. Training thread only.
#pragma once
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hansa::nn {

struct RopeSettings {
  struct Linear {  // all positions closer together (arXiv 2306.15595)
    double factor = 1;
  };
  struct Dynamic {  // texts longer than max_positions get a larger theta, by their own length ("NTK-aware")
    double factor = 1, max_positions = 2048;
  };
  struct Llama3 {  // long contexts by slowing the low frequencies down (arXiv 2407.21783)
    double factor = 8, low_frequency_factor = 1, high_frequency_factor = 4, original_max_positions = 8192;
  };
  struct
      Yarn {  // between the two betas, turns per original context, from kept to stretched frequencies (arXiv 2309.00071)
    double factor = 1, beta_fast = 32, beta_slow = 1, original_max_positions = 2048;
    bool truncate = true;
  };
  struct LongRope {  // a factor for each frequency; other ones for texts longer than the original (arXiv 2402.13753)
    std::vector<double> short_factor, long_factor;
    double original_max_positions = 4096;
  };
  std::int64_t dim = 0;  // of a head, or fewer: the rest is not turned
  double theta = 10000;
  std::variant<std::monostate, Linear, Dynamic, Llama3, Yarn, LongRope> scaling;
  double magnitude = 1;  // of cos and sin

  // Texts longer than this are turned otherwise from their first token on; none: length does not matter.
  std::optional<std::int64_t> boundary() const;
  std::int64_t longest(std::int64_t max_positions) const;  // the longest text, where config.json says max_positions
};

// fp32 [dim / 2]; of texts of this length.
at::Tensor rope_frequencies(const RopeSettings&, std::int64_t length = 0);

class Rope {
 public:
  Rope() = default;
  explicit Rope(RopeSettings);
  const RopeSettings& settings() const { return settings_; }
  struct Rows {           // of one batch, for all its layers
    at::Tensor cos, sin;  // [batch or 1, length, 1, dim], in the compute type; sin of the first half is negated
  };
  // positions i64 [batch, length]; lengths: for each token that of its text, asked for where settings() have a boundary.
  Rows rows(const at::Tensor& positions, at::ScalarType compute, const at::Tensor& lengths = {}) const;
  static at::Tensor rotate(const at::Tensor& x, const Rows&);  // [batch, length, heads, at least dim]

 private:
  at::Tensor angles(const at::Tensor& positions, const at::Tensor& lengths) const;
  RopeSettings settings_;
  at::Tensor frequencies_;
};

}  // namespace hansa::nn
