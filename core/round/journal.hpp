// An append-only file of records that outlives kills: one line each, "<16 hex digits> <JSON>", where the digits are XXH3-64
// over the previous line's digits and the JSON (so a line that was changed, removed or repeated in the middle is noticed).
// Readable with less. The machine and the ledger own one each; one thread at a time. Mode 0600: cohorts are private.
// Fails with Error (unreadable, corrupt) or DiskFull (the record is not in the file; everything before it is).
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"

namespace hansa {

class Journal {
 public:
  enum class Tail : std::uint8_t {
    CutDamaged,  // anything after the last whole record goes, unless a whole record follows the damage
    CutUnfinished,  // only a line without its end goes; a finished line that does not check is refused (ledger: never lose spend)
  };
  // Opens or creates. What had to be cut is said by `cut_bytes` and `note`.
  Journal(std::filesystem::path path, Durability durability, Tail tail = Tail::CutDamaged);

  // JSON texts of the records found when opened, oldest first. Handed out once, to save memory.
  std::vector<std::string> take_records();
  // In the page cache (Durability::Process) or on the disk (Power) when it returns. `json`: one JSON object, no line break.
  void append(std::string_view json);

  std::uint64_t size() const { return size_; }
  std::uint64_t cut_bytes() const { return cut_bytes_; }  // 0: nothing was torn
  std::string note() const;                               // a sentence when something was cut, else ""
  const std::filesystem::path& path() const { return path_; }

 private:
  void read_all(Tail tail);
  void cut_to(std::uint64_t size);
  void sync();

  std::filesystem::path path_;
  Durability durability_;
  FileDescriptor fd_;
  std::uint64_t size_ = 0, cut_bytes_ = 0;
  std::string last_digits_;
  std::vector<std::string> records_;
};

}  // namespace hansa
