// A chain of compressors as one codec: every part that a stage gives goes through the next stage, and what comes out is a
// tree (Code) with raw leaves, ready for a packet. An empty chain leaves tensors raw. The chain borrows its compressors.
//
// decode trusts nothing: the tree must have the chain's depth, every stage the parts that its plan says, every part the
// planned dtype and shape (where the plan leaves a length open, no more bytes than the plan's most), so memory stays within
// the sizes that `out` implies. encode holds every stage to its plan too, so that a stage which lies is found where it runs.
//
// What a stage throws, and the chain's own Error about what it gave or was given, leaves through that stage's CodecGuard:
// `where` is what the caller knows of the round, node and tensor; the chain adds what is being done. Thread: one call at a time
// unless every stage is Reentrant.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <hansa/compressor.hpp>

#include "base/call_place.hpp"
#include "tensor/packet.hpp"

namespace hansa {

// Seeds of one tensor, from a seed of the round: the same for everyone who knows the round's.
std::uint64_t tensor_seed(std::uint64_t seed, std::string_view channel, Index index);

struct EncodedTensor {
  Code code;                       // offsets unset
  std::vector<at::Tensor> leaves;  // contiguous, CPU, in the order of the raw codes; a raw tensor is shared, not copied
  std::uint64_t bytes() const;     // of leaves and stage headers together
};

// How the host calls one stage, so that the chain need not know how plugins are watched and named.
class CodecGuard {
 public:
  virtual ~CodecGuard() = default;
  // Makes the call once; what it throws leaves with the stage's name and the place.
  virtual void call(const CallPlace&, const std::function<void()>& stage) const = 0;
};

class CodecChain {
 public:
  CodecChain() = default;
  // `guards`: one for each stage, borrowed too; none: stages are called as they are.
  explicit CodecChain(std::vector<const Compressor*> stages, std::vector<const CodecGuard*> guards = {})
      : stages_(std::move(stages)), guards_(std::move(guards)) {}
  bool empty() const { return stages_.empty(); }

  // Contiguous copies are made where needed.
  EncodedTensor encode(const at::Tensor&, Seeds, const CallPlace& where = {}) const;
  // A tensor of exactly `out`. Raw tensors come back as views of the packet: read-only, gone with its bytes.
  at::Tensor decode(const PacketView&, const Code&, const TensorSpec& out, std::uint64_t common,
                    const CallPlace& where = {}) const;
  // The same of what encode() gave, before it stands in a packet: what the other side will see.
  at::Tensor decode(const EncodedTensor&, const TensorSpec& out, std::uint64_t common,
                    const CallPlace& where = {}) const;
  // What one tensor will take in a packet, headers included, index and alignment (below 1 KiB) not; `parts` are the leaves.
  SizePlan plan(const TensorSpec&, const CallPlace& where = {}) const;
  // The code that it will have, by size alone: where the sizes depend on the values, as large as they may get or as they
  // usually are. Headers have their length and no content.
  enum class Size : std::uint8_t { Typical, Most };
  Code planned(const TensorSpec&, Size, const CallPlace& where = {}) const;

 private:
  std::vector<const Compressor*> stages_;
  std::vector<const CodecGuard*> guards_;
};

}  // namespace hansa
