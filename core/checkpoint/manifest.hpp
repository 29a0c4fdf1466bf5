// The checkpoint's table of contents: which version is the newest, with sizes and checksums, and how long the logs were when
// it was written. One file, replaced atomically, carrying its own checksum; the one before it stays beside it
// (manifest.previous.json) and is used when the newest is damaged or missing. Coordinator's round thread. Fails with Error.
//
// Order at a release: version and state files renamed; ledger.released; events and metrics of the round appended; manifest
// written; machine.released (journal). On resume: logs cut back to the manifest's offsets; a machine in Folding whose manifest
// already names base + 1 adopts that version by calling released() instead of folding again.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <hansa/types.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"

namespace hansa {

struct FileFacts {
  std::uint64_t size = 0;
  Checksum checksum;
  bool operator==(const FileFacts&) const = default;
};

struct Manifest {
  std::string run_id;
  Epoch epoch = 0;
  Round round = 0;           // rounds released so far
  FileFacts version, state;  // of this epoch; a size of 0: no such file
  std::uint64_t events_offset = 0, metrics_offset = 0;
  std::map<std::string, std::string> notes;  // small facts: build, digests of base, tokenizer and plugins
  bool operator==(const Manifest&) const = default;
};

void write_manifest(const std::filesystem::path& path, const Manifest& manifest, Durability durability);

struct LoadedManifest {
  Manifest manifest;
  std::string note;  // a sentence when the previous one had to be used, else ""
};
// Nothing: none was ever written. Throws Error when there are files but none is whole.
std::optional<LoadedManifest> load_manifest(const std::filesystem::path& path);

// Size and checksum of a file, read through once; throws Error when unreadable.
FileFacts facts_of(const std::filesystem::path& path);
// Throws Error, naming the file and what differs, unless it is as the manifest says.
void require_facts(const std::filesystem::path& path, const FileFacts& expected);

}  // namespace hansa
