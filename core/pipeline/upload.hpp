// Both ends of an upload. The node: joint clip, local noise, codec chain, packet. The coordinator: is this packet what the
// round asked for, is it finite, how long is it, by how much must it be clipped. The order is that of design rules: clip,
// then noise, then codecs; the coordinator measures the decoded delta, because clients are not trusted to clip.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <hansa/privacy.hpp>

#include "pipeline/work_order.hpp"
#include "plugin_host/instance.hpp"
#include "tensor/codec_chain.hpp"

namespace hansa::pipeline {

// One update ready to be sent. Streams without a second copy; owns its tensors.
class EncodedUpdate {
 public:
  // deltas: the tensors of the "adapter" channel in layout order; raw ones are kept, not copied.
  EncodedUpdate(const WorkOrder&, std::vector<EncodedTensor>);
  std::uint64_t size() const { return plan_.total_bytes(); }
  void stream(
      const ByteSink&) const;  // the packet's bytes, in order; they stay where they are for the life of this object
  double norm_before_clip = 0, clip_factor = 1;

 private:
  PacketPlan plan_;
  std::vector<EncodedTensor> tensors_;
};

struct NodeStages {  // borrowed
  const CodecChain& codecs;
  const Instance<Privacy>& privacy;  // may be null
  SecureRng& noise;
};

// Clips and noises `deltas` in place (fp32, contiguous, in layout order), then encodes. Throws Error on a delta that is not
// finite: such an update is never sent.
EncodedUpdate encode_update(const WorkOrder&, std::vector<at::Tensor> deltas, NodeStages, Seeds);

struct Screened {
  bool accepted = false;
  std::string reason;      // why not
  double norm = 0;         // L2 of the decoded delta
  double clip_factor = 1;  // the fold multiplies by it
};
// Reads the whole upload once. Bad packets are a verdict, never an exception; disk errors are Error.
Screened screen_upload(const std::filesystem::path& packet, const WorkOrder&, const CodecChain&,
                       std::uint64_t common_seed);

}  // namespace hansa::pipeline
