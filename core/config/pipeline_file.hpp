// What PipelineFile holds: the merged tree and what went wrong on the way. Inside config/ only.
#pragma once
#include <filesystem>
#include <vector>

#include "config/document.hpp"
#include "config/load.hpp"

namespace hansa::config {

struct PipelineFile::State {
  Sources sources;
  Node root;
  std::vector<Diagnostic> diagnostics;
  std::filesystem::path file;  // as given
  bool unreadable = false, parsed = true;
};

// A path as its author meant it: relative to the file (or working directory, for --set) that names it; absolute, tidy.
std::filesystem::path path_of(const Sources&, const Span& where, std::string_view text);

}  // namespace hansa::config
