#include "base/free_memory.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include <fmt/format.h>

namespace hansa {
namespace {

namespace fs = std::filesystem;

// Of a file that is one number; "max" is none.
std::optional<std::uint64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// Of a file with lines "key 123" or "key: 123 kB".
std::optional<std::uint64_t> number_of(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name, unit;
    std::uint64_t value = 0;
    if (!(words >> name >> value) || (name != key && name != key + ":")) continue;
    return words >> unit && unit == "kB" ? value * 1024 : value;
  }
  return std::nullopt;
}

std::uint64_t minus(std::uint64_t whole, std::uint64_t part) { return whole > part ? whole - part : 0; }

void take_least(FreeMemory& least, std::uint64_t bytes, const std::string& limit) {
  if (bytes < least.bytes) least = {bytes, limit};
}

// One group: its limit less what it holds, where pages of files are given back when memory is short.
void take_group(FreeMemory& least, const fs::path& folder, const char* limit_file, const char* usage_file) {
  const auto limit = number_in(folder / limit_file), usage = number_in(folder / usage_file);
  if (!limit || !usage) return;
  const auto pages = number_of(folder / "memory.stat", "inactive_file").value_or(0) +
                     number_of(folder / "memory.stat", "active_file").value_or(0);
  take_least(least, minus(*limit, minus(*usage, pages)),
             fmt::format("the limit of its control group ({})", (folder / limit_file).string()));
}

// A group is bound by all above it.
void take_groups(FreeMemory& least, const fs::path& root) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == line.npos) continue;
    const auto kinds = line.substr(first + 1, second - first - 1);
    const bool memory = kinds == "memory", unified = kinds.empty();
    if (!memory && !unified) continue;
    const auto mount = root / (memory ? "sys/fs/cgroup/memory" : "sys/fs/cgroup");
    auto group = fs::path(line.substr(second + 1)).relative_path();
    while (true) {
      if (memory)
        take_group(least, mount / group, "memory.limit_in_bytes", "memory.usage_in_bytes");
      else
        take_group(least, mount / group, "memory.max", "memory.current");
      if (group.empty()) break;
      group = group.parent_path();
    }
  }
}

void take_address_space(FreeMemory& least) {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const auto pages = number_in("/proc/self/statm").value_or(0);
  take_least(least, minus(limit.rlim_cur, pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE))),
             "the limit of address space (ulimit -v)");
}

}  // namespace

FreeMemory free_memory_under(const fs::path& root) {
  FreeMemory least{std::numeric_limits<std::uint64_t>::max(), "nothing"};
  if (const auto bytes = number_of(root / "proc/meminfo", "MemAvailable")) take_least(least, *bytes, "the machine");
  take_groups(least, root);
  return least;
}

FreeMemory free_memory() {
  auto least = free_memory_under("/");
  take_address_space(least);
  return least;
}

}  // namespace hansa
