// A file's bytes in memory that nobody can change any more: what is hashed, verified and read from here is what the loader
// then maps. Any thread. Failures are hansa::Error with the path and the system's reason.
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "base/file.hpp"

namespace hansa {

class SealedFile {
 public:
  // Copies what `from` (open for reading, at its start) holds into a memory file and seals it against writing, growing and
  // shrinking. `path` is for messages, and its file name for whoever looks at the process's maps.
  static SealedFile copy_of(int from, const std::filesystem::path& path);
  static SealedFile copy_of(const std::filesystem::path&);
  ~SealedFile();
  SealedFile(SealedFile&&) noexcept;
  SealedFile& operator=(SealedFile&&) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& sha256() const { return sha256_; }  // of the sealed bytes, 64 hex digits
  // A name under which the loader opens these bytes. Its descriptor stays open until the process ends, whatever becomes of
  // this object: the loader knows libraries by name, and would hand out this one for the next file with the same number.
  std::filesystem::path name_for_loader() const;

 private:
  SealedFile() = default;
  FileDescriptor memory_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::string sha256_;
};

}  // namespace hansa
