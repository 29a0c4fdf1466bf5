#include "base/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace hansa {
namespace {

void sync_directory_of(const std::filesystem::path& path) {
  const auto directory = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const auto fd = open_file(directory, O_RDONLY | O_DIRECTORY);
  if (fsync(fd.get()) != 0) throw_errno("flush", directory);
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}
FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

void throw_errno(std::string_view doing, const std::filesystem::path& path) {
  const int code = errno;
  const auto text = fmt::format("cannot {} {}: {}", doing, path.string(), std::strerror(code));
  if (code == ENOSPC || code == EDQUOT) throw DiskFull(text + "; free space on that file system, then go on");
  throw Error(text);
}

FileDescriptor open_file(const std::filesystem::path& path, int flags, unsigned mode) {
  FileDescriptor fd(open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) throw_errno("open", path);
  return fd;
}

void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const auto wrote = write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw_errno("write to", path);
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
  }
}

void write_all_at(int fd, std::uint64_t offset, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const auto wrote = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw_errno("write to", path);
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    offset += static_cast<std::uint64_t>(wrote);
  }
}

std::string read_file(const std::filesystem::path& path) {
  const auto fd = open_file(path, O_RDONLY);
  std::string bytes;
  char buffer[1 << 16];
  for (;;) {
    const auto got = read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read", path);
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(got));
  }
}

void rename_into_place(const std::filesystem::path& from, const std::filesystem::path& to, Durability durability) {
  if (std::rename(from.c_str(), to.c_str()) != 0) throw_errno("rename a temporary file to", to);
  if (durability == Durability::Power) sync_directory_of(to);
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes, Durability durability,
                           unsigned mode) {
  auto temporary = path;
  temporary += fmt::format(".tmp{}", getpid());
  try {
    const auto fd = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode);
    write_all(fd.get(), std::as_bytes(std::span(bytes)), temporary);
    if (durability == Durability::Power && fsync(fd.get()) != 0) throw_errno("flush", temporary);
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  rename_into_place(temporary, path, durability);
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto fd = open_file(path, O_RDONLY);
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) throw_errno("inspect", path);
  if (!S_ISREG(status.st_mode)) throw Error(fmt::format("{} is not a regular file", path.string()));
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;
  void* at = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) throw_errno("map", path);
  data_ = static_cast<const std::byte*>(at);
}
MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
}
MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace hansa
