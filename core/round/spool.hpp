// Uploads on their way in: one file per (round, attempt, node), written in order, checksummed on the way. What was accepted
// survives a kill: on reopening, the held prefix is the file's size and its checksum is read back. Each SpoolFile is used by
// one thread at a time; different files may be used by different threads. Refusals are values; Error means a broken disk.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "round/work.hpp"

namespace hansa {

class SpoolFile {
 public:
  SpoolFile(std::filesystem::path path, std::uint64_t max_size, Durability durability);

  std::uint64_t held() const { return held_; }  // bytes that need not be sent again
  // Bytes below held() are ignored (sent again after a reconnect); a gap, too many bytes or a full disk are refused and
  // change nothing. Nothing returned: taken.
  std::optional<Refusal> write(std::uint64_t offset, std::span<const std::byte> bytes);
  // The sender says it is complete: size and checksum must be those of what is held. On a mismatch of the checksum the bytes
  // are dropped, so that they can be sent again from 0. Under Durability::Power the file is on the disk afterwards. Repeatable.
  std::optional<Refusal> seal(std::uint64_t size, const Checksum& checksum);
  bool sealed() const { return sealed_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void cut_to(std::uint64_t size);

  std::filesystem::path path_;
  std::uint64_t max_size_;
  Durability durability_;
  FileDescriptor fd_;
  std::uint64_t held_ = 0;
  bool sealed_ = false;
  RunningChecksum running_;
};

class Spool {  // the directory of those files; coordinator's round thread
 public:
  Spool(std::filesystem::path directory, Durability durability);  // made when missing, mode 0700
  // Opens or continues the upload of `work`.
  SpoolFile open(const WorkItem& work, std::uint64_t max_size) const;
  std::filesystem::path path_of(Round round, std::uint32_t attempt, NodeId node) const;
  void remove(Round round, std::uint32_t attempt, NodeId node) const;
  void remove_all_but(Round round, std::uint32_t attempt) const;  // files of other rounds and attempts go
  std::uint64_t bytes() const;                                    // on the disk now

 private:
  std::filesystem::path directory_;
  Durability durability_;
};

}  // namespace hansa
