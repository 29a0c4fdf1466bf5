// The packet: the one binary form of named tensors, used for uploads, downloads, version files and spools. Torch-free.
//
//   head      64 bytes: magic, version, length and checksum of the index, where the data begins, total length
//   index     meta strings; channels; per tensor its name and its *code*: dtype, shape and either where its raw bytes
//             stand, or one stage of the codec chain (the stage's header and its parts, each again a code)
//   data      the raw leaves in index order, each 64-byte aligned, so that a memory-mapped packet gives any tensor, or a
//             range of a raw one, without touching the rest
//
// A PacketPlan lays contents out before any tensor byte exists, as soon as the sizes are known; a PacketWriter then streams
// head and leaves in order through a sink, so nothing is held twice and nothing is patched. A PacketView reads bytes of any
// origin: it checks everything that it hands out and throws Error with a sentence; it owns no bytes, its caller keeps them.
// Values without shared state: any thread. Little-endian machines only.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/types.hpp>

namespace hansa {

inline constexpr std::uint32_t kPacketVersion = 1;
inline constexpr std::size_t kPacketAlignment = 64;

struct Code {  // a tensor as it travels: raw, or one stage's output whose parts are codes again
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  bool coded = false;
  std::uint64_t offset = 0, bytes = 0;  // raw: where it stands in the packet; PacketPlan fills it in
  std::string header;                   // coded: what the stage's decode needs beside the parts
  std::vector<Code> parts;              // coded: each through the next stage, or raw after the last
  bool operator==(const Code&) const = default;
};
struct PacketEntry {
  std::string name;
  Code code;
  bool operator==(const PacketEntry&) const = default;
};
struct PacketChannel {
  std::string name;
  std::vector<PacketEntry> entries;
  bool operator==(const PacketChannel&) const = default;
};
struct PacketContents {
  std::map<std::string, std::string> meta;  // "round", "epoch", …: the user of the packet decides
  std::vector<PacketChannel> channels;
  bool operator==(const PacketContents&) const = default;
};

Code raw_code(DType, std::vector<std::int64_t> shape);
PacketChannel raw_channel(std::string name, const Layout&);  // every tensor as it is
// The first way in which the channel is not the layout (count, name, dtype, shape), or nothing. An extent of -1 fits any.
std::optional<std::string> difference(const PacketChannel&, const Layout&);

using ByteSink = std::function<void(std::span<const std::byte>)>;

class
    PacketPlan {  // immutable once made; throws Error on contents that no packet can hold (duplicate names, bad extents)
 public:
  explicit PacketPlan(PacketContents);
  const PacketContents& contents() const { return contents_; }  // offsets filled in
  const PacketChannel* find(std::string_view channel) const;
  std::span<const std::byte> head() const { return head_; }  // head, index and padding up to the first leaf
  std::uint64_t total_bytes() const { return total_bytes_; }
  const std::vector<const Code*>& leaves() const { return leaves_; }  // raw codes in the order of their bytes

  PacketPlan(const PacketPlan&) = delete;
  PacketPlan& operator=(const PacketPlan&) = delete;
  PacketPlan(PacketPlan&&) = default;  // moving a vector keeps its elements in place, so leaves_ stay valid

 private:
  PacketContents contents_;
  std::vector<const Code*> leaves_;
  std::vector<std::byte> head_;
  std::uint64_t total_bytes_ = 0;
};

class PacketWriter {  // streams one packet in order; plan and sink outlive it
 public:
  PacketWriter(const PacketPlan&, ByteSink);  // writes the head at once
  // Bytes of the current leaf, whole or in pieces; never across leaves. Padding and empty leaves are the writer's business.
  void write(std::span<const std::byte>);
  void finish();  // throws Error unless every leaf was written

 private:
  void pad_and_advance();
  const PacketPlan& plan_;
  ByteSink sink_;
  std::size_t leaf_ = 0;
  std::uint64_t in_leaf_ = 0, written_ = 0;
};

class PacketView {
 public:
  explicit PacketView(std::span<const std::byte> packet);  // throws Error naming what is wrong
  const PacketContents& contents() const { return contents_; }
  const PacketChannel* find(std::string_view channel) const;
  std::optional<std::string> meta(std::string_view key) const;
  std::span<const std::byte> bytes(const Code& leaf) const;  // of a raw code of this packet
  std::span<const std::byte> elements(const Code& leaf, std::int64_t first, std::int64_t count) const;

 private:
  std::span<const std::byte> packet_;
  PacketContents contents_;
};

class AlignedBytes {  // memory for packets that stand in no file; 64-byte aligned, fixed capacity, not zeroed
 public:
  explicit AlignedBytes(std::uint64_t capacity);
  void append(std::span<const std::byte>);  // throws Error beyond the capacity
  ByteSink sink() {
    return [this](std::span<const std::byte> bytes) { append(bytes); };
  }
  std::span<const std::byte> bytes() const { return {data_.get(), size_}; }
  std::span<std::byte> writable() { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte*) const;
  };
  std::unique_ptr<std::byte[], Free> data_;
  std::uint64_t size_ = 0, capacity_ = 0;
};

}  // namespace hansa
