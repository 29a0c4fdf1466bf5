#include "round/spool.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>

namespace hansa {
namespace {

constexpr std::uint32_t kDiskFullRetryMs = 5000;
constexpr std::size_t kReadBytes = 1 << 20;

std::string stem_of(Round round, std::uint32_t attempt) { return fmt::format("r{:06}-a{:03}-", round, attempt); }

}  // namespace

SpoolFile::SpoolFile(std::filesystem::path path, std::uint64_t max_size, Durability durability)
    : path_(std::move(path)),
      max_size_(max_size),
      durability_(durability),
      fd_(open_file(path_, O_RDWR | O_CREAT, 0600)) {
  struct stat status {};
  if (fstat(fd_.get(), &status) != 0) throw_errno("inspect", path_);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  std::vector<std::byte> buffer(std::min<std::uint64_t>(size, kReadBytes));
  while (held_ < size) {
    const auto got = pread(fd_.get(), buffer.data(), buffer.size(), static_cast<off_t>(held_));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw_errno("read", path_);
    running_.add(std::span(buffer).first(static_cast<std::size_t>(got)));
    held_ += static_cast<std::uint64_t>(got);
  }
  if (held_ > max_size_) cut_to(0);  // of another layout, not of this work
}

std::optional<Refusal> SpoolFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (offset > held_) {
    return Refusal{Refusal::Code::BadPayload,
                   fmt::format("bytes from {} arrived where {} was next: send again from there", offset, held_), true,
                   0};
  }
  const auto known = held_ - offset;
  if (bytes.size() <= known) return std::nullopt;
  bytes = bytes.subspan(static_cast<std::size_t>(known));
  if (sealed_)
    return Refusal{Refusal::Code::BadPayload, "this upload is complete: nothing can be added to it", false, 0};
  if (bytes.size() > max_size_ - held_) {
    return Refusal{Refusal::Code::TooLarge, fmt::format("this upload may have at most {} bytes", max_size_), false, 0};
  }
  try {
    write_all_at(fd_.get(), held_, bytes, path_);
  } catch (const DiskFull& why) {
    if (ftruncate(fd_.get(), static_cast<off_t>(held_)) != 0) throw_errno("shorten", path_);
    return Refusal{Refusal::Code::Busy, why.what(), true, kDiskFullRetryMs};
  }
  running_.add(bytes);
  held_ += bytes.size();
  return std::nullopt;
}

std::optional<Refusal> SpoolFile::seal(std::uint64_t size, const Checksum& checksum) {
  if (size > max_size_) {
    return Refusal{Refusal::Code::TooLarge,
                   fmt::format("this upload may have at most {} bytes, not {}", max_size_, size), false, 0};
  }
  if (size > held_) {
    return Refusal{Refusal::Code::BadPayload,
                   fmt::format("{} of {} bytes have arrived: send the rest, then commit again", held_, size), true, 0};
  }
  if (size < held_ || running_.value() != checksum) {
    const bool was_sealed = sealed_;
    if (!was_sealed) cut_to(0);
    return Refusal{
        Refusal::Code::BadChecksum,
        was_sealed ? "another upload was already committed for this work"
                   : "the bytes that arrived are not those that were announced: send the upload again from its start",
        !was_sealed, 0};
  }
  if (durability_ == Durability::Power && !sealed_ && fdatasync(fd_.get()) != 0) {
    if (errno != ENOSPC && errno != EDQUOT) throw_errno("flush", path_);
    return Refusal{Refusal::Code::Busy, fmt::format("cannot flush {}: {}", path_.string(), std::strerror(errno)), true,
                   kDiskFullRetryMs};
  }
  sealed_ = true;
  return std::nullopt;
}

void SpoolFile::cut_to(std::uint64_t size) {
  if (ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) throw_errno("shorten", path_);
  running_.reset();
  held_ = size;
}

Spool::Spool(std::filesystem::path directory, Durability durability)
    : directory_(std::move(directory)), durability_(durability) {
  std::error_code why;
  std::filesystem::create_directories(directory_, why);
  if (why) throw Error(fmt::format("cannot make the directory {}: {}", directory_.string(), why.message()));
  std::filesystem::permissions(directory_, std::filesystem::perms::owner_all, why);
}

SpoolFile Spool::open(const WorkItem& work, std::uint64_t max_size) const {
  return SpoolFile(path_of(work.round, work.attempt, work.node), max_size, durability_);
}

std::filesystem::path Spool::path_of(Round round, std::uint32_t attempt, NodeId node) const {
  return directory_ / fmt::format("{}{:016x}", stem_of(round, attempt), node);
}

void Spool::remove(Round round, std::uint32_t attempt, NodeId node) const {
  std::error_code missing_is_fine;
  std::filesystem::remove(path_of(round, attempt, node), missing_is_fine);
}

void Spool::remove_all_but(Round round, std::uint32_t attempt) const {
  const auto kept = stem_of(round, attempt);
  std::vector<std::filesystem::path> going;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    if (!entry.path().filename().string().starts_with(kept)) going.push_back(entry.path());
  }
  std::error_code missing_is_fine;
  for (const auto& path : going) std::filesystem::remove(path, missing_is_fine);
}

std::uint64_t Spool::bytes() const {
  std::uint64_t sum = 0;
  std::error_code vanished;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    const auto size = entry.file_size(vanished);
    if (!vanished) sum += size;
  }
  return sum;
}

}  // namespace hansa
