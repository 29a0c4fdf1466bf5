// Compressor "topk": the k largest magnitudes of a tensor and where they stand; everything else is zero. Two parts: `where`,
// the gaps between kept positions as Rice codes (u8, of a length that follows from the shape alone), and `values`, in the
// tensor's own type, for the next stage to quantise. Whole numbers (an earlier stage's codes) pass as they
// are. Pure, Reentrant.
#pragma once
#include <hansa/compressor.hpp>

namespace hansa::topk {

struct Params {
  double fraction = 0.01;
};

class TopK final : public Stateless<Compressor> {
 public:
  explicit TopK(Params params) : params_(params) {}
  SizePlan plan(const TensorSpec&) const override;
  Encoded encode(const at::Tensor&, Seeds) const override;
  at::Tensor decode(const Encoded&, const TensorSpec& out, std::uint64_t common) const override;
  std::int64_t kept(std::int64_t elements) const;  // k

 private:
  Params params_;
};

}  // namespace hansa::topk
