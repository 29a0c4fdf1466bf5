#include "tensor/packet_index.hpp"

#include <cstring>
#include <limits>
#include <unordered_set>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa {
namespace {

constexpr std::uint8_t kLastDType = static_cast<std::uint8_t>(DType::i64);
constexpr std::size_t kLeastCodeBytes = 12, kLeastEntryBytes = 4 + kLeastCodeBytes, kLeastChannelBytes = 8;

class IndexWriter {
 public:
  template <class T>
  void number(T value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), from, from + sizeof value);
  }
  void text(std::string_view value) {
    number(static_cast<std::uint32_t>(value.size()));
    const auto* from = reinterpret_cast<const std::byte*>(value.data());
    bytes_.insert(bytes_.end(), from, from + value.size());
  }
  void code(const Code& code) {
    number(static_cast<std::uint8_t>(code.coded));
    number(static_cast<std::uint8_t>(code.dtype));
    number(static_cast<std::uint16_t>(code.shape.size()));
    for (auto extent : code.shape) number(extent);
    if (!code.coded) {
      number(code.offset);
      number(code.bytes);
      return;
    }
    text(code.header);
    number(static_cast<std::uint32_t>(code.parts.size()));
    for (const auto& part : code.parts) this->code(part);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class IndexReader {
 public:
  explicit IndexReader(std::span<const std::byte> bytes) : left_(bytes) {}
  bool done() const { return left_.empty(); }

  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::string text(std::string_view what) {
    const auto size = number<std::uint32_t>(what);
    const auto bytes = take(size, what);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  std::string name(std::string_view what) {
    auto value = text(what);
    if (value.size() > kMostNameBytes)
      throw Error(fmt::format("packet: {} of {} bytes is too long", what, value.size()));
    return value;
  }
  // A count is believed only as far as the bytes that are left could hold it.
  std::uint32_t count(std::string_view what, std::size_t least_bytes_each) {
    const auto value = number<std::uint32_t>(what);
    if (value > left_.size() / least_bytes_each)
      throw Error(fmt::format("packet: its index promises {} {} and has bytes for at most {}", value, what,
                              left_.size() / least_bytes_each));
    return value;
  }
  Code code(const std::string& tensor, std::size_t depth) {
    if (depth > kMostStages)
      throw Error(fmt::format("packet: the code of '{}' has over {} stages", tensor, kMostStages));
    Code code;
    const auto form = number<std::uint8_t>("a code");
    const auto dtype = number<std::uint8_t>("a dtype");
    const auto dimensions = number<std::uint16_t>("a shape");
    if (form > 1) throw Error(fmt::format("packet: '{}' is in unknown form {}", tensor, form));
    if (dtype > kLastDType) throw Error(fmt::format("packet: '{}' has unknown dtype {}", tensor, dtype));
    if (dimensions > kMostDimensions) throw Error(fmt::format("packet: '{}' has {} dimensions", tensor, dimensions));
    code.dtype = static_cast<DType>(dtype);
    code.coded = form == 1;
    for (std::uint16_t i = 0; i < dimensions; ++i) code.shape.push_back(number<std::int64_t>("a shape"));
    if (code.coded) {
      checked_bytes(code);
      code.header = text("a stage header");
      const auto parts = count("parts of a code", kLeastCodeBytes);
      for (std::uint32_t i = 0; i < parts; ++i) code.parts.push_back(this->code(tensor, depth + 1));
      return code;
    }
    code.offset = number<std::uint64_t>("an offset");
    code.bytes = number<std::uint64_t>("a length");
    if (code.bytes != checked_bytes(code))
      throw Error(fmt::format("packet: '{}' says {} bytes where its dtype and shape need {}", tensor, code.bytes,
                              checked_bytes(code)));
    return code;
  }

 private:
  std::span<const std::byte> take(std::size_t size, std::string_view what) {
    if (size > left_.size())
      throw Error(fmt::format("packet: its index ends inside {} ({} bytes needed, {} left)", what, size, left_.size()));
    const auto taken = left_.first(size);
    left_ = left_.subspan(size);
    return taken;
  }
  std::span<const std::byte> left_;
};

void require_new(std::unordered_set<std::string>& seen, const std::string& name, std::string_view what) {
  if (!seen.insert(name).second) throw Error(fmt::format("packet: {} '{}' stands in it twice", what, name));
}

PacketChannel parse_channel(IndexReader& reader) {
  PacketChannel channel{reader.name("a channel name"), {}};
  const auto entries = reader.count("tensors", kLeastEntryBytes);
  channel.entries.reserve(entries);
  std::unordered_set<std::string> names;
  for (std::uint32_t i = 0; i < entries; ++i) {
    PacketEntry entry{reader.name("a tensor name"), {}};
    require_new(names, entry.name, "tensor");
    entry.code = reader.code(entry.name, 0);
    channel.entries.push_back(std::move(entry));
  }
  return channel;
}

}  // namespace

std::uint64_t checked_bytes(const Code& code) {
  constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
  std::uint64_t bytes = size_of(code.dtype);
  bool empty = false;
  for (auto extent : code.shape) {
    if (extent < 0) throw Error(fmt::format("packet: a tensor has a negative extent ({})", extent));
    if (extent == 0)
      empty = true;
    else if (static_cast<std::uint64_t>(extent) > most / bytes)
      throw Error("packet: a tensor's size overflows 64 bits");
    else
      bytes *= static_cast<std::uint64_t>(extent);
  }
  return empty ? 0 : bytes;
}

std::vector<std::byte> write_index(const PacketContents& contents) {
  IndexWriter writer;
  writer.number(static_cast<std::uint32_t>(contents.meta.size()));
  for (const auto& [key, value] : contents.meta) {
    writer.text(key);
    writer.text(value);
  }
  writer.number(static_cast<std::uint32_t>(contents.channels.size()));
  for (const auto& channel : contents.channels) {
    writer.text(channel.name);
    writer.number(static_cast<std::uint32_t>(channel.entries.size()));
    for (const auto& entry : channel.entries) {
      writer.text(entry.name);
      writer.code(entry.code);
    }
  }
  return writer.take();
}

PacketContents parse_index(std::span<const std::byte> bytes) {
  IndexReader reader(bytes);
  PacketContents contents;
  const auto metas = reader.count("meta strings", 8);
  for (std::uint32_t i = 0; i < metas; ++i) {
    auto key = reader.name("a meta key");
    if (!contents.meta.emplace(key, reader.text("a meta value")).second)
      throw Error(fmt::format("packet: meta key '{}' stands in it twice", key));
  }
  const auto channels = reader.count("channels", kLeastChannelBytes);
  std::unordered_set<std::string> names;
  for (std::uint32_t i = 0; i < channels; ++i) {
    contents.channels.push_back(parse_channel(reader));
    require_new(names, contents.channels.back().name, "channel");
  }
  if (!reader.done()) throw Error("packet: its index has bytes beyond its last channel");
  return contents;
}

}  // namespace hansa
