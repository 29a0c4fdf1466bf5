// Files as the rest of the core needs them: whole reads, atomic replacement, read-only maps. All throw Error with the path
// and the system's reason; a full disk is DiskFull, so that callers can refuse instead of dying.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.hpp"

namespace hansa {

class DiskFull : public Error {
 public:
  using Error::Error;
};

enum class Durability : std::uint8_t {
  Process,  // survives SIGKILL: the page cache suffices
  Power,    // fsync at each step
};

class FileDescriptor {  // closes itself
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

[[noreturn]] void throw_errno(std::string_view doing,
                              const std::filesystem::path& path);  // DiskFull for ENOSPC and EDQUOT
FileDescriptor open_file(const std::filesystem::path&, int flags, unsigned mode = 0644);
void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& for_messages);
void write_all_at(int fd, std::uint64_t offset, std::span<const std::byte> bytes,
                  const std::filesystem::path& for_messages);
std::string read_file(const std::filesystem::path&);
// Temporary name beside it, written, (fsynced,) renamed over `path`, (directory fsynced.) The old file stays until the rename.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes, Durability, unsigned mode = 0644);
void rename_into_place(const std::filesystem::path& from, const std::filesystem::path& to, Durability);

class MappedFile {  // read-only; bytes stay valid for its life, even when the file is renamed or unlinked
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path&);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace hansa
