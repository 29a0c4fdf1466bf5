// Both ends of an upload. The node: error memory, joint clip, local noise, codec chain, packet. The coordinator: is this packet
// what the round asked for, is it finite, how long is it, by how much must it be clipped. The order is that of design rules:
// memory, clip, noise, codecs; the coordinator measures the decoded delta, because clients are not trusted to clip.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/privacy.hpp>

#include "pipeline/tensor_store.hpp"
#include "pipeline/work_order.hpp"
#include "plugin_host/instance.hpp"
#include "tensor/codec_chain.hpp"

namespace hansa::pipeline {

// One update ready to be sent. Streams without a second copy; owns its tensors.
class EncodedUpdate {
 public:
  // tensors: per up channel, in layout order; raw ones are kept, not copied.
  EncodedUpdate(const WorkOrder&, std::vector<std::vector<EncodedTensor>> tensors);
  std::uint64_t size() const { return plan_.total_bytes(); }
  void stream(
      const ByteSink&) const;  // the packet's bytes, in order; they stay where they are for the life of this object
  double norm_before_clip = 0, clip_factor = 1;
  // Per up channel what the coordinator will decode of it; filled for Mean channels only.
  std::vector<std::vector<at::Tensor>> decoded;

 private:
  PacketPlan plan_;
  std::vector<std::vector<EncodedTensor>> tensors_;
};

struct ErrorFeedback {  // what the node keeps of what the codecs and the clip lost
  TensorStore& memory;  // by "channel/tensor"; left as it is for tensors that do not travel this round
  double decay = 1;
};
struct NodeStages {  // borrowed
  const CodecChain& codecs;
  const Instance<Privacy>& privacy;  // may be null
  SecureRng& noise;
  ErrorFeedback* feedback = nullptr;
  std::optional<NodeId> node{};              // whose update it is
  std::string_view trainer = "the trainer";  // who made it: "trainer sft 0.1.0"
};

// `outgoing`: the tensors of each up channel in layout order. Those of Sum and Mean channels are changes (fp32, contiguous)
// and are clipped and noised in place; Collect channels go as they are. Throws PluginFailure in the trainer's name on a change that
// is not finite or of another layout: such an update is never sent.
EncodedUpdate encode_update(const WorkOrder&, std::vector<std::vector<at::Tensor>> outgoing, NodeStages, Seeds);

struct Screened {
  bool accepted = false;
  std::string reason;      // why not
  double norm = 0;         // L2 of the decoded changes, all Sum and Mean channels together
  double clip_factor = 1;  // the fold multiplies by it
};
// Reads the whole upload once. Bad packets are a verdict, never an exception; disk errors are Error.
// `node`: whose it is, for messages; nothing where nodes are not named.
Screened screen_upload(const std::filesystem::path& packet, const WorkOrder&, const CodecChain&,
                       std::uint64_t common_seed, std::optional<NodeId> node = {});

}  // namespace hansa::pipeline
