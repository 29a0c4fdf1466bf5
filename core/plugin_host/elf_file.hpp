// The few facts of a shared library that decide whether it may be loaded, read from its bytes without running any of
// them. Pure: any thread. Total: whatever the bytes say, the answer is facts or a sentence, never a read outside them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace hansa {

struct ElfFacts {
  std::uint16_t machine = 0;         // EM_X86_64, …
  std::vector<std::string> needed;   // DT_NEEDED, in order
  std::vector<std::string> exports;  // defined and visible dynamic symbols, sorted
  std::string note;                  // text of the Hansa note; "" when there is none
};

Result<ElfFacts> read_elf(std::span<const std::byte> bytes);
std::string_view machine_name(std::uint16_t machine);
std::uint16_t host_machine();

}  // namespace hansa
