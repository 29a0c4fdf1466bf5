// Where a base takes more memory (quantised/held_bytes.hpp) than there is: the sentence that says what would fit, before its
// weights are read. Values; any thread.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <c10/core/Device.h>
#include <hansa/model.hpp>

#include "base/free_memory.hpp"

namespace hansa::nn {

// How much more weights may take on a device: of the CPU what this process may, of another what its allocator says.
FreeMemory free_memory_on(at::Device);

// How to hold it instead, in the words of [model]: "base_dtype = \"nf4\" with compute = \"bf16\" takes 3.9 GB and fits".
std::string what_would_fit(const std::vector<Module>&, const std::vector<bool>& quantisable, std::uint64_t available);

// Throws Error where the base as asked for needs more than `free` has.
void require_memory(const std::string& checkpoint, const std::vector<Module>&, const Opening&,
                    const std::vector<bool>& quantisable, const FreeMemory& free);

}  // namespace hansa::nn
