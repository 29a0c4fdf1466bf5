#include "pipeline/planned_sizes.hpp"

#include <algorithm>
#include <string>

#include <fmt/format.h>
#include <hansa/layouts.hpp>

namespace hansa::pipeline {
namespace {

// The meta strings of a version, with numbers of the most digits that are likely.
constexpr const char* kEpoch = "999999";
constexpr const char* kMadeBy = "round 999999 attempt 99";

TensorSpec filled(TensorSpec spec, Size size) {  // a collected list
  if (!open_length(spec)) return spec;
  auto others = static_cast<std::int64_t>(size_of(spec.dtype));
  for (const auto extent : spec.shape) others *= std::max<std::int64_t>(extent, 1);
  const auto length = size == Size::Most ? static_cast<std::int64_t>(kMostListBytes) / others : 0;
  std::replace(spec.shape.begin(), spec.shape.end(), std::int64_t{-1}, length);
  return spec;
}

PacketPlan planned_upload(const Exchange& exchange, const CodecChain& codecs, Size size) {
  PacketContents contents;
  const CodecChain as_they_are;
  for (const auto& channel : exchange.up) {
    PacketChannel packed{channel.name, {}};
    const bool collected = channel.carry == Carry::Collect;
    for (const auto& tensor : channel.layout.tensors)
      packed.entries.push_back(
          {tensor.name, collected ? as_they_are.planned(filled(tensor, size), size) : codecs.planned(tensor, size)});
    contents.channels.push_back(std::move(packed));
  }
  return PacketPlan(std::move(contents));
}

// A tensor of a channel of the rule's own moves in every round; of the adapter, what travels up.
bool moves(const Exchange& exchange, const Channel& down, const std::string& tensor) {
  if (down.name != kAdapterChannel) return true;
  const auto* up = find_channel(exchange.up, down.name);
  return up && std::any_of(up->layout.tensors.begin(), up->layout.tensors.end(),
                           [&](const auto& one) { return one.name == tensor; });
}

bool all_moves(const Exchange& exchange) {
  for (const auto& down : exchange.down) {
    if (down.keep == Keep::Log) continue;
    for (const auto& tensor : down.layout.tensors)
      if (!moves(exchange, down, tensor.name)) return false;
  }
  return true;
}

enum class Of : std::uint8_t { Whole, Part };

std::uint64_t standing_bytes(const Exchange& exchange, const CodecChain& downlink, Size size, Of of) {
  PacketContents contents;
  std::string moved;
  for (const auto& down : exchange.down) {
    if (down.keep == Keep::Log) continue;
    PacketChannel packed{down.name, {}};
    for (const auto& tensor : down.layout.tensors) {
      const bool moving = moves(exchange, down, tensor.name);
      if (moving) moved += fmt::format("{}/{}\n", down.name, tensor.name);
      if (moving || of == Of::Whole) packed.entries.push_back({tensor.name, downlink.planned(tensor, size)});
    }
    if (!packed.entries.empty() || of == Of::Whole) contents.channels.push_back(std::move(packed));
  }
  contents.meta = {{"epoch", kEpoch}, {"made_by", kMadeBy}, {"moved", all_moves(exchange) ? "*" : moved}};
  return PacketPlan(std::move(contents)).total_bytes();
}

}  // namespace

bool open_length(const TensorSpec& spec) {
  return std::find(spec.shape.begin(), spec.shape.end(), -1) != spec.shape.end();
}

std::uint64_t dense_bytes(const TensorSpec& spec) {
  return open_length(spec) ? 0 : static_cast<std::uint64_t>(spec.elements()) * size_of(spec.dtype);
}

std::uint64_t dense_bytes(const Layout& layout) {
  std::uint64_t sum = 0;
  for (const auto& tensor : layout.tensors) sum += dense_bytes(tensor);
  return sum;
}

// Header and parts of one stage may share its bytes otherwise than planned, which moves the index's end and each leaf by less
// than their alignment.
std::uint64_t upload_bytes(const Exchange& exchange, const CodecChain& codecs, Size size) {
  const auto plan = planned_upload(exchange, codecs, size);
  const bool exact = size == Size::Typical || codecs.empty();
  return plan.total_bytes() + (exact ? 0 : (plan.leaves().size() + 1) * kPacketAlignment);
}

std::uint64_t upload_index_bytes(const Exchange& exchange, const CodecChain& codecs) {
  return planned_upload(exchange, codecs, Size::Typical).head().size();
}

std::uint64_t version_bytes(const Exchange& exchange, const CodecChain& downlink, Size size) {
  return standing_bytes(exchange, downlink, size, Of::Whole);
}

std::uint64_t part_bytes(const Exchange& exchange, const CodecChain& downlink, Size size) {
  return all_moves(exchange) ? 0 : standing_bytes(exchange, downlink, size, Of::Part);
}

std::uint64_t log_entry_bytes(const Exchange& exchange) {
  PacketContents contents;
  const CodecChain as_they_are;
  for (const auto& down : exchange.down) {
    if (down.keep == Keep::Latest) continue;
    PacketChannel packed{down.name, {}};
    for (const auto& tensor : down.layout.tensors)
      packed.entries.push_back({tensor.name, as_they_are.planned(tensor, Size::Typical)});
    contents.channels.push_back(std::move(packed));
  }
  return contents.channels.empty() ? 0 : PacketPlan(std::move(contents)).total_bytes();
}

std::uint64_t state_bytes(const Layout& standing, const std::vector<std::vector<TensorSpec>>& state) {
  PacketChannel packed{"optimizer", {}};
  for (std::size_t i = 0; i < standing.tensors.size(); ++i)
    for (const auto& tensor : state.at(i))
      packed.entries.push_back(
          {fmt::format("{}/{}", standing.tensors[i].name, tensor.name), raw_code(tensor.dtype, tensor.shape)});
  if (packed.entries.empty()) return 0;
  PacketContents contents;
  contents.channels.push_back(std::move(packed));
  return PacketPlan(std::move(contents)).total_bytes();
}

}  // namespace hansa::pipeline
