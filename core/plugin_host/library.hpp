// Opens a plugin file, by its path or from sealed memory: build note first, then the dynamic loader, then the entry, then the tables. Main thread. What was
// loaded stays until the process ends, because objects, vtables and stored exceptions outlive any closing.
#pragma once
#include <filesystem>

#include <hansa/plugin.h>

#include "base/error.hpp"
#include "plugin_host/build_note.hpp"
#include "plugin_host/sealed_file.hpp"

namespace hansa {

struct OpenedPlugin {
  const HansaPlugin* plugin = nullptr;
  BuildNote note;
  std::string sha256;  // of the bytes that the note was read from
};

// Runs none of the file's code unless its note agrees with `host`. The failure is the end of a sentence about the file.
Result<OpenedPlugin> open_plugin(const std::filesystem::path& absolute, const BuildNote& host);
// From memory: what is loaded is what was sealed, whatever has become of the file on disk.
Result<OpenedPlugin> open_plugin(const SealedFile&, const BuildNote& host);

}  // namespace hansa
