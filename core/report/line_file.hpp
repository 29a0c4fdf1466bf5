// A text file that grows by whole lines, each written by one call: a kill leaves at most one torn line, which is cut when the
// file is opened again. Any thread. Fails with Error; DiskFull leaves the file without the line.
#pragma once
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string_view>

#include "base/file.hpp"

namespace hansa {

class LineFile {
 public:
  explicit LineFile(std::filesystem::path path);  // opens or creates; cuts a torn last line
  void append(std::string_view line);             // without its line break
  std::uint64_t offset() const;                   // length now: what a checkpoint remembers
  void truncate_to(std::uint64_t offset);         // back to a checkpoint; a shorter file stays as it is

 private:
  mutable std::mutex mutex_;
  std::filesystem::path path_;
  FileDescriptor fd_;
  std::uint64_t size_ = 0;
};

// Whether rows and events that name single nodes are written. Under DP they are not: who took part is part of the secret.
enum class NodeDetail : std::uint8_t { Written, Withheld };

}  // namespace hansa
