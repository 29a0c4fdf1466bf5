// The index of a packet as bytes, and back. Private to packet.cpp and its tests; parse is total on hostile bytes: memory
// stays within a constant times the length of the index.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "tensor/packet.hpp"

namespace hansa {

inline constexpr std::size_t kMostDimensions = 16, kMostStages = 16, kMostNameBytes = 4096;
inline constexpr std::uint64_t kMostIndexBytes = 64u << 20;  // some 400,000 tensors

std::uint64_t checked_bytes(const Code&);  // elements times size; throws Error on negative or overflowing extents
std::vector<std::byte> write_index(const PacketContents&);
PacketContents parse_index(std::span<const std::byte>);

}  // namespace hansa
