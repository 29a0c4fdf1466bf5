// A disk that fills up, for one test: while a FullDisk lives, pwrite() in this process writes at most `room` bytes more and
// then fails with ENOSPC, as a real one does (the last write before is a short one). Needs no rights and no mount.
#pragma once
#include <cstdint>

namespace hansa {

class FullDisk {
 public:
  explicit FullDisk(std::int64_t room);
  ~FullDisk();
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
};

}  // namespace hansa
