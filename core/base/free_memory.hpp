// How much more memory this process may take: the least of what the machine has left, the limits of its control groups and
// its own limit of address space. Read anew at each call. Any thread; does not throw: what cannot be read is no limit.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

namespace hansa {

struct FreeMemory {
  std::uint64_t bytes = 0;
  std::string
      limit;  // what sets it: "the machine", "the limit of its control group (…)", "the limit of address space (ulimit -v)"
};

FreeMemory free_memory();
// Of the files under another root: what tests make up.
FreeMemory free_memory_under(const std::filesystem::path& root);

}  // namespace hansa
