#include "plugin_host/sealed_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/digest.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLargestPlugin = std::size_t{1} << 30;  // what is larger is no plugin, and would fill the memory

std::size_t copy(int from, int to, const fs::path& path) {
  std::vector<std::byte> buffer(1 << 18);
  std::size_t size = 0;
  for (;;) {
    const auto got = ::read(from, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read", path);
    if (got == 0) return size;
    size += static_cast<std::size_t>(got);
    if (size > kLargestPlugin) throw Error(fmt::format("{} is larger than 1 GiB: that is no plugin", path.string()));
    write_all(to, std::span(buffer).first(static_cast<std::size_t>(got)), path);
  }
}

}  // namespace

SealedFile SealedFile::copy_of(int from, const fs::path& path) {
  constexpr std::size_t kLongestName = 200;
  const auto name = path.filename().string().substr(0, kLongestName);
  SealedFile file;
  file.memory_ = FileDescriptor(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.memory_) throw_errno("make a memory file for", path);
  file.size_ = copy(from, file.memory_.get(), path);
  if (fcntl(file.memory_.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
    throw_errno("seal the copy in memory of", path);
  if (file.size_ > 0) {
    void* at = mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, file.memory_.get(), 0);
    if (at == MAP_FAILED) throw_errno("map the copy in memory of", path);
    file.data_ = static_cast<const std::byte*>(at);
  }
  file.sha256_ = sha256_hex({reinterpret_cast<const char*>(file.data_), file.size_});
  return file;
}

SealedFile SealedFile::copy_of(const fs::path& path) {
  return copy_of(open_file(path, O_RDONLY | O_NONBLOCK).get(), path);
}

SealedFile::~SealedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
}
SealedFile::SealedFile(SealedFile&& other) noexcept
    : memory_(std::move(other.memory_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      sha256_(std::move(other.sha256_)) {}
SealedFile& SealedFile::operator=(SealedFile&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(sha256_, other.sha256_);
  return *this;
}

fs::path SealedFile::name_for_loader() const {
  const int kept = fcntl(memory_.get(), F_DUPFD_CLOEXEC, 3);
  if (kept < 0) throw_errno("keep open", "the copy in memory of a plugin");
  return fmt::format("/proc/self/fd/{}", kept);
}

}  // namespace hansa
