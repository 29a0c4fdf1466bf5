// Kind "compressor": one stage of a codec chain. Stateless; error memory belongs to the host and wraps clip and chain.
// Called from node and coordinator threads, one call at a time unless Reentrant.
#pragma once
#include <hansa/component.hpp>

namespace hansa {

struct Seeds {
  std::uint64_t common = 0;  // the cohort's: rotations, shared masks; all that decode sees
  std::uint64_t own = 0;     // this node's: stochastic rounding
};
struct Encoded {
  std::vector<at::Tensor>
      parts;           // any DType; packed bytes are u8; contiguous; each goes through the next stage by itself
  std::string header;  // what decode needs beside the parts
};
struct SizePlan {
  std::vector<TensorSpec> parts;  // what encode gives; a -1 extent where the length depends on the values
  std::uint64_t typical_bytes = 0, most_bytes = 0;  // of all parts and the header together
};

class Compressor : public Component {
 public:
  using InterfaceType = Compressor;
  static constexpr std::string_view kKind = "compressor/1";
  virtual SizePlan plan(const TensorSpec& in) const = 0;
  virtual Encoded encode(const at::Tensor& in, Seeds seeds) const = 0;
  // Total: a tensor of exactly `out`, or an exception; memory bounded by out's size whatever the bytes say.
  virtual at::Tensor decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t common) const = 0;
};

}  // namespace hansa
