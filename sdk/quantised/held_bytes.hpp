// What the weights of a base take in memory, before they are read: from its modules' sizes and how they are to be held (Opening,
// BaseDtype). Models refuse by it what does not fit; `hansa check --explain` prints it. Pure; any thread.
#pragma once
#include <cstdint>
#include <vector>

#include <hansa/model.hpp>

namespace hansa::quantised {

// All weights as held, and the largest in fp32 of those that are quantised. `quantised`: which modules `base` holds for.
std::uint64_t held_bytes(const std::vector<Module>&, DType compute, BaseDtype base, const std::vector<bool>& quantised);

}  // namespace hansa::quantised
