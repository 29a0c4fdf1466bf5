// Compressor "int8": each block of elements as 8-bit integers and one fp32 scale, the block's largest magnitude over 127.
// Whole numbers (an earlier stage's positions) pass as they are. Pure and Reentrant. std::invalid_argument for values that are
// not finite.
#pragma once
#include <hansa/compressor.hpp>

namespace hansa::int8 {

enum class Rounding { Nearest, Stochastic };
struct Params {
  std::int64_t block = 256;
  Rounding rounding = Rounding::Nearest;
};
std::uint64_t traits(const Params&);

class Int8 final : public Stateless<Compressor> {
 public:
  explicit Int8(Params params) : params_(params) {}
  SizePlan plan(const TensorSpec&) const override;
  Encoded encode(const at::Tensor&, Seeds) const override;
  at::Tensor decode(const Encoded&, const TensorSpec& out, std::uint64_t common) const override;

 private:
  Params params_;
};

}  // namespace hansa::int8
