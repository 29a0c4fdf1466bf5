#include "round/journal.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include <fmt/format.h>

#include "base/digest.hpp"

namespace hansa {
namespace {

constexpr std::size_t kDigits = 16;

std::string digits_of(std::string_view previous_digits, std::string_view json) {
  std::string text(previous_digits);
  text += json;
  return fmt::format("{:016x}", xxh3_64(std::string_view(text)));
}

// The JSON of a line whose digits are right, else an empty view.
std::string_view checked(std::string_view line, std::string_view previous_digits) {
  if (line.size() < kDigits + 2 || line[kDigits] != ' ') return {};
  const auto json = line.substr(kDigits + 1);
  return digits_of(previous_digits, json) == line.substr(0, kDigits) ? json : std::string_view{};
}

// Whether any finished line after the damaged one is whole, judged by the digits that stand before it.
bool whole_line_follows(std::string_view bytes, std::size_t damaged_at) {
  std::string_view previous;
  for (std::size_t at = damaged_at;;) {
    const auto end = bytes.find('\n', at);
    if (end == std::string_view::npos) return false;
    const auto line = bytes.substr(at, end - at);
    if (at != damaged_at && !checked(line, previous).empty()) return true;
    previous = line.substr(0, std::min(kDigits, line.size()));
    at = end + 1;
  }
}

}  // namespace

Journal::Journal(std::filesystem::path path, Durability durability, Tail tail)
    : path_(std::move(path)), durability_(durability) {
  // Created by a rename, so that under Durability::Power the name is on the disk before the first record counts.
  if (!std::filesystem::exists(path_)) write_file_atomically(path_, "", durability_, 0600);
  fd_ = open_file(path_, O_RDWR, 0600);
  read_all(tail);
}

void Journal::read_all(Tail tail) {
  const auto bytes = read_file(path_);
  const std::string_view all = bytes;
  for (;;) {
    const auto end = all.find('\n', size_);
    if (end == std::string_view::npos) break;
    const auto line = all.substr(size_, end - size_);
    const auto json = checked(line, last_digits_);
    if (json.empty()) {
      if (tail == Tail::CutUnfinished || whole_line_follows(all, size_)) {
        throw Error(fmt::format(
            "{} is damaged at byte {} (record {}): a record there does not match its checksum, and this is no "
            "write that a crash cut off. Restore the file from a copy, or start again in a new run directory",
            path_.string(), size_, records_.size() + 1));
      }
      break;
    }
    records_.emplace_back(json);
    last_digits_ = line.substr(0, kDigits);
    size_ = end + 1;
  }
  cut_bytes_ = all.size() - size_;
  if (cut_bytes_ == 0) return;
  cut_to(size_);
  sync();
}

std::vector<std::string> Journal::take_records() { return std::exchange(records_, {}); }

void Journal::append(std::string_view json) {
  if (json.empty() || json.find('\n') != std::string_view::npos)
    throw Error("a journal record is one line that is not empty");
  auto digits = digits_of(last_digits_, json);
  const auto line = fmt::format("{} {}\n", digits, json);
  try {
    write_all_at(fd_.get(), size_, std::as_bytes(std::span(line)), path_);
    sync();
  } catch (...) {
    cut_to(size_);  // a half-written line must not stand before the next one
    throw;
  }
  size_ += line.size();
  last_digits_ = std::move(digits);
}

std::string Journal::note() const {
  if (cut_bytes_ == 0) return {};
  return fmt::format("{}: {} bytes of an unfinished record were cut off at byte {}", path_.string(), cut_bytes_, size_);
}

void Journal::cut_to(std::uint64_t size) {
  if (ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) throw_errno("shorten", path_);
}

void Journal::sync() {
  if (durability_ == Durability::Power && fdatasync(fd_.get()) != 0) throw_errno("flush", path_);
}

}  // namespace hansa
