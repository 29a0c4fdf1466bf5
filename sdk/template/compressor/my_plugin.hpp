// Compressor "my_plugin": fp32 as half precision, with magnitudes cut at `limit`. Replace the coding; keep to the rules of
// hansa/compressor.hpp: plan() tells the truth, decode() trusts nothing. Pure and Reentrant.
#pragma once
#include <hansa/compressor.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  double limit = 65504;
};

class MyPlugin final : public hansa::Stateless<hansa::Compressor> {
 public:
  explicit MyPlugin(Params params) : params_(params) {}
  hansa::SizePlan plan(const hansa::TensorSpec& in) const override;
  hansa::Encoded encode(const at::Tensor& in, hansa::Seeds seeds) const override;
  at::Tensor decode(const hansa::Encoded& encoded, const hansa::TensorSpec& out, std::uint64_t common) const override;

 private:
  Params params_;
};

}  // namespace example
