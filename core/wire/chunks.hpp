// Internal. Sends chunks into a ByteSink, from where they lie. I/O thread.
#pragma once
#include <cstdint>
#include <span>

#include "hansa.capnp.h"

namespace hansa::wire {

// In flight per transfer. On a link with a round trip of 50 ms this still allows 80 MiB/s.
inline constexpr std::uint64_t kWindowBytes = 4u << 20;
// Of messages received and not yet answered, per connection: more than a window in each direction.
inline constexpr std::size_t kFlowLimitWords = (32u << 20) / sizeof(capnp::word);
inline constexpr std::uint32_t kChunkBytesLeast = 4u << 10, kChunkBytesMost = 16u << 20;

// Resolves when the other side has taken the bytes: until then they stay where they are, unchanged. After a failure they
// do so until the connection is gone.
// An ordinary call of the streaming method: on the wire that is the same, but it says when each chunk has been taken, and
// the window is ours rather than a guess from the socket's buffer size.
kj::Promise<void> send_chunk(rpc::ByteSink::Client& sink, std::uint64_t offset, std::span<const std::byte> bytes,
                             std::uint64_t xxh3);

}  // namespace hansa::wire
