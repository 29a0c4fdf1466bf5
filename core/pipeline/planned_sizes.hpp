// How many bytes packets will have, before there are any: head, index and alignment included, because they are laid out as
// real ones are. The engine bounds uploads by it, `hansa check --explain` prints it. Pure; throws what PacketPlan throws.
#pragma once
#include <cstdint>
#include <vector>

#include <hansa/types.hpp>

#include "tensor/codec_chain.hpp"

namespace hansa::pipeline {

using Size = CodecChain::Size;

inline constexpr std::uint64_t kMostListBytes = 16u << 20;  // of one collected tensor whose length the sender decides

bool open_length(const TensorSpec&);
std::uint64_t dense_bytes(const TensorSpec&);  // of an open length: none
std::uint64_t dense_bytes(const Layout&);

// One upload of the exchange. Lists whose length the sender decides are empty, or at most kMostListBytes each.
std::uint64_t upload_bytes(const Exchange&, const CodecChain&, Size);
// A version of what stands, whole; through the downlink's chain, an empty one for the file that the coordinator keeps.
std::uint64_t version_bytes(const Exchange&, const CodecChain& downlink, Size);
// What of a version moves in a round of this exchange; 0 where all of it does, so that no part is made.
std::uint64_t part_bytes(const Exchange&, const CodecChain& downlink, Size);
// What a round appends to the Log channels, as far as their lengths are known; 0 where there are none.
std::uint64_t log_entry_bytes(const Exchange&);
// What a server optimiser keeps beside a version: `state` of each tensor; 0 where it keeps nothing.
std::uint64_t state_bytes(const Layout& standing, const std::vector<std::vector<TensorSpec>>& state);
// The head and index of an upload: what a coordinator reads of each before it folds.
std::uint64_t upload_index_bytes(const Exchange&, const CodecChain&);

}  // namespace hansa::pipeline
