// What a plugin file was built for against what this host needs, compared before any of the file's code runs: a library
// that was linked with AddressSanitizer would end the process inside dlopen. Pure: any thread.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugin_host/elf_file.hpp"

namespace hansa {

inline constexpr std::string_view kRebuildCommand = "cmake -S <its source> -B build && cmake --build build";

using BuildNote =
    std::vector<std::pair<std::string, std::string>>;  // in the order of the text; build_note.h names the keys

BuildNote parse_note(std::string_view text);  // lines without '=' are dropped
const std::string* find(const BuildNote&, std::string_view key);
// The kinds with revision that a note names: "aggregator/1".
std::vector<std::string> kinds_of(const BuildNote&);
BuildNote host_note();  // of this program, compiled from the same macros

// Why the file must not be loaded: each differing field, what the file was built for, what this host needs, and the command
// that rebuilds it; or symbols that it must not export, or a C++ runtime of its own. Nothing: it may be loaded.
std::optional<std::string> incompatibility(const ElfFacts&, const BuildNote& host);

}  // namespace hansa
