// A packet written to disk leaf by leaf, in any order, without ever standing in memory: how a version file comes into being.
// Used by the fold and by whoever writes the first version. One thread. The bytes go to a temporary name; finish() renames.
// A writer that is dropped before finish() removes its temporary file. Throws Error, DiskFull when space ends.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "tensor/packet.hpp"

namespace hansa::fold {

struct PacketFile {
  Checksum checksum;
  std::uint64_t size = 0;
};

class PacketFileWriter {
 public:
  PacketFileWriter(std::filesystem::path final_name, PacketContents, Durability);
  ~PacketFileWriter();
  PacketFileWriter(const PacketFileWriter&) = delete;
  PacketFileWriter& operator=(const PacketFileWriter&) = delete;

  const PacketPlan& plan() const { return plan_; }
  // Bytes of a raw leaf of plan(), from `offset` within the leaf.
  void put(const Code& leaf, std::uint64_t offset, std::span<const std::byte> bytes);
  PacketFile finish();  // throws Error when bytes are missing

 private:
  void hash_while_in_order(std::uint64_t leaf_offset, std::uint64_t offset, std::span<const std::byte> bytes);

  std::filesystem::path final_name_, temporary_;
  Durability durability_;
  PacketPlan plan_;
  FileDescriptor file_;
  RunningChecksum checksum_;
  std::uint64_t hashed_ = 0;   // the prefix that the running checksum covers
  std::size_t next_leaf_ = 0;  // where that prefix ends: in this leaf,
  std::uint64_t in_leaf_ = 0;  // after so many of its bytes
  std::uint64_t put_ = 0;      // leaf bytes written so far
  bool finished_ = false;
};

}  // namespace hansa::fold
