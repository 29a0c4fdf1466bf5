#include "report/line_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

namespace hansa {
namespace {

// Length of the part that ends with a line break.
std::uint64_t whole_lines(int fd, std::uint64_t size, const std::filesystem::path& path) {
  std::array<char, 4096> block;
  while (size > 0) {
    const auto count = std::min<std::uint64_t>(size, block.size());
    const auto from = size - count;
    const auto got = pread(fd, block.data(), count, static_cast<off_t>(from));
    if (got < 0 && errno == EINTR) continue;
    if (got != static_cast<ssize_t>(count)) throw_errno("read", path);
    const auto at = std::string_view(block.data(), count).rfind('\n');
    if (at != std::string_view::npos) return from + at + 1;
    size = from;
  }
  return 0;
}

}  // namespace

LineFile::LineFile(std::filesystem::path path) : path_(std::move(path)), fd_(open_file(path_, O_RDWR | O_CREAT)) {
  struct stat status {};
  if (fstat(fd_.get(), &status) != 0) throw_errno("inspect", path_);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  size_ = whole_lines(fd_.get(), size, path_);
  if (size_ != size && ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0) throw_errno("shorten", path_);
}

void LineFile::append(std::string_view line) {
  std::string text(line);
  std::replace(text.begin(), text.end(), '\n', ' ');
  text += '\n';
  const std::lock_guard lock(mutex_);
  try {
    write_all_at(fd_.get(), size_, std::as_bytes(std::span(text)), path_);
  } catch (...) {
    if (ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0) throw_errno("shorten", path_);
    throw;
  }
  size_ += text.size();
}

std::uint64_t LineFile::offset() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

void LineFile::truncate_to(std::uint64_t offset) {
  const std::lock_guard lock(mutex_);
  if (offset >= size_) return;
  // A checkpoint's offset is the end of a line; of any other number the whole lines below it stay.
  const auto keep = whole_lines(fd_.get(), offset, path_);
  if (ftruncate(fd_.get(), static_cast<off_t>(keep)) != 0) throw_errno("shorten", path_);
  size_ = keep;
}

}  // namespace hansa
