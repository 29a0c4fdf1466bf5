// Opens a plugin file: build note first, then the dynamic loader, then the entry, then the tables. Main thread. What was
// loaded stays until the process ends, because objects, vtables and stored exceptions outlive any closing.
#pragma once
#include <filesystem>

#include <hansa/plugin.h>

#include "base/error.hpp"
#include "plugin_host/build_note.hpp"

namespace hansa {

struct OpenedPlugin {
  const HansaPlugin* plugin = nullptr;
  BuildNote note;
};

// Runs none of the file's code unless its note agrees with `host`. The failure is the end of a sentence about the file.
Result<OpenedPlugin> open_plugin(const std::filesystem::path& absolute, const BuildNote& host);

}  // namespace hansa
