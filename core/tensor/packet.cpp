#include "tensor/packet.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <unordered_set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/digest.hpp"
#include "base/error.hpp"
#include "tensor/packet_index.hpp"

namespace hansa {
namespace {

static_assert(std::endian::native == std::endian::little, "packets are little-endian and read in place");

constexpr std::array<char, 8> kMagic{'H', 'A', 'N', 'S', 'A', 'P', 'K', '\n'};

struct Head {  // the first 64 bytes
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kPacketVersion;
  std::uint32_t reserved = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t index_checksum = 0;  // XXH3 of the index
  std::uint64_t data_begins = 0;
  std::uint64_t total_bytes = 0;
  std::array<std::uint64_t, 2> reserved_too{};
};
static_assert(sizeof(Head) == kPacketAlignment);

constexpr std::uint64_t aligned(std::uint64_t offset) {
  return (offset + kPacketAlignment - 1) / kPacketAlignment * kPacketAlignment;
}

template <class CodeRef, class Visit>  // depth first: the order of the bytes
void each_leaf(CodeRef& code, const Visit& visit) {
  if (!code.coded) return visit(code);
  for (auto& part : code.parts) each_leaf(part, visit);
}
template <class Contents, class Visit>
void each_leaf_of(Contents& contents, const Visit& visit) {
  for (auto& channel : contents.channels)
    for (auto& entry : channel.entries) each_leaf(entry.code, [&](auto& leaf) { visit(leaf, entry.name); });
}

const PacketChannel* find_channel(const PacketContents& contents, std::string_view name) {
  for (const auto& channel : contents.channels)
    if (channel.name == name) return &channel;
  return nullptr;
}

void require_plannable(const Code& code, const std::string& tensor, std::size_t depth) {
  if (code.shape.size() > kMostDimensions || depth > kMostStages)
    throw Error(fmt::format("packet: '{}' has more than {} dimensions or {} codec stages", tensor, kMostDimensions,
                            kMostStages));
  checked_bytes(code);
  for (const auto& part : code.parts) require_plannable(part, tensor, depth + 1);
}

void require_plannable(const PacketContents& contents) {
  std::unordered_set<std::string_view> channels;
  for (const auto& channel : contents.channels) {
    if (!channels.insert(channel.name).second)
      throw Error(fmt::format("packet: two channels are named '{}'", channel.name));
    std::unordered_set<std::string_view> names;
    for (const auto& entry : channel.entries) {
      if (!names.insert(entry.name).second)
        throw Error(fmt::format("packet: two tensors of channel '{}' are named '{}'", channel.name, entry.name));
      if (entry.name.size() > kMostNameBytes) throw Error("packet: a tensor's name is over 4096 bytes long");
      require_plannable(entry.code, entry.name, 0);
    }
  }
}

Head checked_head(std::span<const std::byte> packet) {
  if (packet.size() < sizeof(Head))
    throw Error(fmt::format("packet: truncated: {} bytes, its head alone has {}", packet.size(), sizeof(Head)));
  Head head;
  std::memcpy(&head, packet.data(), sizeof head);
  if (head.magic != kMagic) throw Error("packet: these bytes are not a packet (wrong magic number)");
  if (head.version != kPacketVersion)
    throw Error(fmt::format("packet: format version {}; this program reads version {}", head.version, kPacketVersion));
  if (head.reserved != 0 || head.reserved_too != std::array<std::uint64_t, 2>{})
    throw Error("packet: reserved fields are not zero");
  if (head.total_bytes != packet.size())
    throw Error(fmt::format("packet: {}: says {} bytes and has {}",
                            head.total_bytes > packet.size() ? "truncated" : "too long", head.total_bytes,
                            packet.size()));
  if (head.index_bytes > kMostIndexBytes || head.index_bytes > packet.size() - sizeof head ||
      head.data_begins > packet.size() || head.data_begins != aligned(sizeof head + head.index_bytes))
    throw Error(
        fmt::format("packet: an index of {} bytes with data at {} does not fit", head.index_bytes, head.data_begins));
  return head;
}

// Leaves must stand exactly where a plan would put them: so none overlap and none reach outside.
void require_canonical(const PacketContents& contents, std::uint64_t data_begins, std::uint64_t total) {
  std::uint64_t end = data_begins;
  each_leaf_of(contents, [&](const Code& leaf, const std::string& name) {
    if (leaf.offset > total || leaf.bytes > total - leaf.offset)
      throw Error(
          fmt::format("packet: '{}' lies outside ({} bytes at {} of {})", name, leaf.bytes, leaf.offset, total));
    if (leaf.offset < end)
      throw Error(fmt::format("packet: '{}' at {} overlaps what ends at {}", name, leaf.offset, end));
    if (leaf.offset != aligned(end))
      throw Error(fmt::format("packet: '{}' stands at {} instead of {}", name, leaf.offset, aligned(end)));
    end = leaf.offset + leaf.bytes;
  });
  if (end != total) throw Error(fmt::format("packet: {} bytes follow its last tensor", total - end));
}

}  // namespace

Code raw_code(DType dtype, std::vector<std::int64_t> shape) {
  Code code;
  code.dtype = dtype;
  code.shape = std::move(shape);
  code.bytes = checked_bytes(code);
  return code;
}

PacketChannel raw_channel(std::string name, const Layout& layout) {
  PacketChannel channel{std::move(name), {}};
  channel.entries.reserve(layout.tensors.size());
  for (const auto& tensor : layout.tensors)
    channel.entries.push_back({tensor.name, raw_code(tensor.dtype, tensor.shape)});
  return channel;
}

std::optional<std::string> difference(const PacketChannel& channel, const Layout& layout) {
  const auto fits = [](const std::vector<std::int64_t>& have, const std::vector<std::int64_t>& want) {
    return std::equal(have.begin(), have.end(), want.begin(), want.end(),
                      [](auto h, auto w) { return w == -1 || h == w; });
  };
  const auto shared = std::min(channel.entries.size(), layout.tensors.size());
  for (std::size_t i = 0; i < shared; ++i) {
    const auto& have = channel.entries[i];
    const auto& want = layout.tensors[i];
    if (have.name != want.name)
      return fmt::format("channel '{}': tensor {} is '{}' where '{}' belongs", channel.name, i, have.name, want.name);
    if (have.code.dtype != want.dtype)
      return fmt::format("channel '{}': '{}' is {} where {} belongs", channel.name, want.name, name_of(have.code.dtype),
                         name_of(want.dtype));
    if (!fits(have.code.shape, want.shape))
      return fmt::format("channel '{}': '{}' has shape [{}] where [{}] belongs", channel.name, want.name,
                         fmt::join(have.code.shape, ", "), fmt::join(want.shape, ", "));
  }
  if (channel.entries.size() == layout.tensors.size()) return {};
  const bool more = channel.entries.size() > shared;
  return fmt::format("channel '{}': {} tensors where {} belong; the first that is {} is '{}'", channel.name,
                     channel.entries.size(), layout.tensors.size(), more ? "too many" : "missing",
                     more ? channel.entries[shared].name : layout.tensors[shared].name);
}

PacketPlan::PacketPlan(PacketContents contents) : contents_(std::move(contents)) {
  require_plannable(contents_);
  each_leaf_of(contents_, [](Code& leaf, const std::string&) { leaf.bytes = checked_bytes(leaf); });
  Head head;
  head.index_bytes = write_index(contents_).size();  // offsets have a fixed width, so the length is final already
  if (head.index_bytes > kMostIndexBytes)
    throw Error(fmt::format("packet: an index of {} bytes is over the limit of {}", head.index_bytes, kMostIndexBytes));
  head.data_begins = aligned(sizeof head + head.index_bytes);
  std::uint64_t end = head.data_begins;
  each_leaf_of(contents_, [&](Code& leaf, const std::string& name) {
    leaf.offset = aligned(end);
    if (leaf.bytes > std::numeric_limits<std::int64_t>::max() - leaf.offset - kPacketAlignment)
      throw Error(fmt::format("packet: too large at '{}'", name));
    end = leaf.offset + leaf.bytes;
    leaves_.push_back(&leaf);
  });
  total_bytes_ = head.total_bytes = end;
  const auto index = write_index(contents_);
  head.index_checksum = xxh3_64(index);
  head_.resize(head.data_begins);
  std::memcpy(head_.data(), &head, sizeof head);
  std::memcpy(head_.data() + sizeof head, index.data(), index.size());
}

const PacketChannel* PacketPlan::find(std::string_view channel) const { return find_channel(contents_, channel); }

PacketWriter::PacketWriter(const PacketPlan& plan, ByteSink sink) : plan_(plan), sink_(std::move(sink)) {
  sink_(plan_.head());
  written_ = plan_.head().size();
  pad_and_advance();
}

void PacketWriter::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const auto& leaves = plan_.leaves();
  if (leaf_ == leaves.size() || bytes.size() > leaves[leaf_]->bytes - in_leaf_)
    throw Error(fmt::format("packet: {} bytes written beyond leaf {} of {}", bytes.size(), leaf_, leaves.size()));
  sink_(bytes);
  written_ += bytes.size();
  in_leaf_ += bytes.size();
  if (in_leaf_ < leaves[leaf_]->bytes) return;
  ++leaf_;
  in_leaf_ = 0;
  pad_and_advance();
}

void PacketWriter::pad_and_advance() {
  static constexpr std::array<std::byte, kPacketAlignment> zeros{};
  const auto& leaves = plan_.leaves();
  for (; leaf_ < leaves.size(); ++leaf_) {
    if (leaves[leaf_]->offset > written_) {
      sink_(std::span(zeros).first(leaves[leaf_]->offset - written_));
      written_ = leaves[leaf_]->offset;
    }
    if (leaves[leaf_]->bytes > 0) return;
  }
}

void PacketWriter::finish() {
  if (written_ != plan_.total_bytes())
    throw Error(fmt::format("packet: finished after {} of {} bytes (leaf {} of {})", written_, plan_.total_bytes(),
                            leaf_, plan_.leaves().size()));
}

PacketView::PacketView(std::span<const std::byte> packet) : packet_(packet) {
  const Head head = checked_head(packet);
  const auto index = packet.subspan(sizeof head, head.index_bytes);
  if (xxh3_64(index) != head.index_checksum) throw Error("packet: its index is damaged (the checksum differs)");
  contents_ = parse_index(index);
  require_canonical(contents_, head.data_begins, head.total_bytes);
}

const PacketChannel* PacketView::find(std::string_view channel) const { return find_channel(contents_, channel); }

std::optional<std::string> PacketView::meta(std::string_view key) const {
  const auto found = contents_.meta.find(std::string(key));
  if (found == contents_.meta.end()) return {};
  return found->second;
}

std::span<const std::byte> PacketView::bytes(const Code& leaf) const {
  if (leaf.coded) throw Error("packet: raw bytes asked of a coded tensor; decode it");
  return packet_.subspan(leaf.offset, leaf.bytes);
}

std::span<const std::byte> PacketView::elements(const Code& leaf, std::int64_t first, std::int64_t count) const {
  const auto all = bytes(leaf);
  const auto size = size_of(leaf.dtype);
  const auto have = static_cast<std::int64_t>(all.size() / size);
  if (first < 0 || count < 0 || first > have || count > have - first)
    throw Error(fmt::format("packet: elements {} + {} asked of a tensor of {}", first, count, have));
  return all.subspan(static_cast<std::size_t>(first) * size, static_cast<std::size_t>(count) * size);
}

AlignedBytes::AlignedBytes(std::uint64_t capacity)
    : data_(static_cast<std::byte*>(std::aligned_alloc(kPacketAlignment, aligned(capacity + 1)))), capacity_(capacity) {
  if (!data_) throw std::bad_alloc();
}

void AlignedBytes::append(std::span<const std::byte> bytes) {
  if (bytes.size() > capacity_ - size_)
    throw Error(fmt::format("packet: {} bytes do not fit in a buffer with {} left", bytes.size(), capacity_ - size_));
  if (!bytes.empty()) std::memcpy(data_.get() + size_, bytes.data(), bytes.size());
  size_ += bytes.size();
}

void AlignedBytes::Free::operator()(std::byte* data) const { std::free(data); }

}  // namespace hansa
