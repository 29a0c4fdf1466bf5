// What nodes are sent of a version: the version itself, or, where the pipeline names downlink codecs, an encoded copy; and for
// nodes that hold the version before, only the part that moved. All of it follows from version files, so it may be made again
// at any time. Coordinator's round thread. Atomic: the final names hold whole packets. Throws Error, DiskFull.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <hansa/component.hpp>

#include "base/file.hpp"
#include "tensor/codec_chain.hpp"

namespace hansa::fold {

// The encoded copy of `version`. A tensor that did not move keeps the code that it has in `before` (the copy of the version
// before; absent or empty: everything is encoded), so that every node decodes the same whatever it missed. Memory: one tensor.
void write_served(const std::filesystem::path& version, const std::filesystem::path& before, const CodecChain& downlink,
                  std::uint64_t down_seed, const std::filesystem::path& out, Durability);

// The tensors of `whole` (a version or its encoded copy) that moved. False, and no file: all of them did.
bool write_part(const std::filesystem::path& whole, const std::filesystem::path& out, Durability);

// A version as it stands on a node or in a run directory: the newest packet that holds a tensor has it. Maps the files.
class Held {
 public:
  // `packets` oldest first. `downlink` outlives this object. `where`: the round and the node that read it, for messages.
  Held(const std::vector<std::filesystem::path>& packets, const CodecChain& downlink, std::uint64_t down_seed,
       CallPlace where = {});
  ~Held();
  Held(Held&&) noexcept;
  // Undefined when no packet holds it. Raw tensors are views of the mapped file.
  at::Tensor tensor(std::string_view channel, const TensorSpec&) const;
  // All of a channel, in the order of the oldest packet that has it.
  NamedTensors channel(std::string_view name) const;

 private:
  struct Open;
  std::vector<std::unique_ptr<Open>> packets_;
  const CodecChain* downlink_;
  std::uint64_t down_seed_;
  CallPlace where_;
};

// The entries of a log file, channel by channel; tensors are views of `view`'s bytes.
std::vector<Download> downloads_of(const PacketView& view, Epoch epoch);

}  // namespace hansa::fold
