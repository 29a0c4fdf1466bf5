// Compressor "bf16": the upper half of each fp32. Pure and Reentrant. Takes f32; whole numbers (an earlier
// stage's positions) pass as they are; std::invalid_argument for others.
#pragma once
#include <hansa/compressor.hpp>

namespace hansa::bf16 {

enum class Rounding { Nearest, Stochastic, TowardZero };
struct Params {
  Rounding rounding = Rounding::Nearest;
};
std::uint64_t traits(const Params&);

class Bf16 final : public Stateless<Compressor> {
 public:
  explicit Bf16(Params params) : params_(params) {}
  SizePlan plan(const TensorSpec&) const override;
  Encoded encode(const at::Tensor&, Seeds) const override;
  at::Tensor decode(const Encoded&, const TensorSpec& out, std::uint64_t common) const override;

 private:
  Params params_;
};

}  // namespace hansa::bf16
