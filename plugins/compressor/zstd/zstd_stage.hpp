// Compressor "zstd": lossless, any dtype. The bytes, sorted into planes where elements have several, as one zstd frame. Pure
// and Reentrant. decode writes into a buffer of exactly the size that `out` needs, so a bomb cannot take more.
#pragma once
#include <hansa/compressor.hpp>

namespace hansa::zstd {

struct Params {
  std::int64_t level = 1;
  bool shuffle = true;
};
std::uint64_t traits();

class Zstd final : public Stateless<Compressor> {
 public:
  explicit Zstd(Params params) : params_(params) {}
  SizePlan plan(const TensorSpec&) const override;
  Encoded encode(const at::Tensor&, Seeds) const override;
  at::Tensor decode(const Encoded&, const TensorSpec& out, std::uint64_t common) const override;

 private:
  Params params_;
};

}  // namespace hansa::zstd
