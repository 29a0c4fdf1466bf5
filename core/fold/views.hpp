// What the fold reads: for each view of the run the version that stands, what its nodes were sent, and the layout of what
// came back; and each accepted upload, mapped. Made once per fold; everything is read where it lies. Throws Error.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "fold/fold.hpp"
#include "tensor/packet.hpp"

namespace hansa::fold {

// A packet with tensors by name: a version, what was sent of it, an optimiser's state.
class MappedPacket {
 public:
  explicit MappedPacket(const std::filesystem::path&);
  MappedPacket(const MappedPacket&) = delete;  // the index points into the view
  MappedPacket& operator=(const MappedPacket&) = delete;
  const PacketView& view() const { return view_; }
  const Code* find(std::string_view channel, std::string_view tensor) const;   // null: not there
  const Code& code(std::string_view channel, std::string_view tensor) const;   // throws
  at::Tensor tensor(std::string_view channel, std::string_view tensor) const;  // a raw one, in place

 private:
  std::filesystem::path path_;
  MappedFile file_;
  PacketView view_;
  std::map<std::pair<std::string_view, std::string_view>, const Code*> index_;
};

class OpenView {
 public:
  OpenView(const FoldView& plan, const CodecChain& downlink, std::uint64_t down_seed, Round);
  const FoldView& plan;
  const Channel* shared;  // the "adapter" channel upwards; null when no trained tensor travels
  MappedPacket base;
  at::Tensor sent(std::string_view channel,
                  const TensorSpec&) const;  // the version's tensor as this view's nodes hold it

 private:
  std::unique_ptr<MappedPacket> sent_;  // null: versions are sent as they are
  const CodecChain& downlink_;
  std::uint64_t down_seed_;
  Round round_;
};

class OpenClient {
 public:
  OpenClient(const FoldClient&, const OpenView&, const CodecChain& codecs, std::uint64_t common_seed, CallPlace);
  const FoldClient& client;
  const OpenView& view;
  // One tensor of an up channel: a change, decoded and re-clipped; of a Collect channel as it came.
  at::Tensor tensor(const Channel&, Index) const;
  at::Tensor slice(const Channel&, Index, std::int64_t first, std::int64_t count) const;

 private:
  const Code& code(const Channel&, Index) const;
  MappedFile file_;
  PacketView packet_;
  const CodecChain& codecs_;
  std::uint64_t common_seed_;
  CallPlace where_;  // round and node
};

// Seed of one tensor of a version on its way down: never the epoch's, because a tensor at rest is not sent again.
std::uint64_t down_tensor_seed(std::uint64_t down_seed, std::string_view channel, std::string_view tensor);

}  // namespace hansa::fold
