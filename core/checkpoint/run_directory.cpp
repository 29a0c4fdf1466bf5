#include "checkpoint/run_directory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "base/digest.hpp"

namespace hansa {
namespace {

constexpr std::string_view kPrefix = "epoch-";
constexpr std::string_view kVersion = ".hansa", kServed = ".served", kPart = ".part", kLog = ".log",
                           kSnapshot = ".snapshot", kState = ".state", kComponents = ".components";
constexpr std::size_t kSecretBytes = 32;

std::string of_view(std::string_view view, std::string_view extension) {
  return view.empty() ? std::string(extension) : fmt::format(".{}{}", view, extension);
}

std::string file_name(Epoch epoch, std::string_view extension) {
  return fmt::format("{}{:06}{}", kPrefix, epoch, extension);
}

// The epoch in "epoch-000012.hansa" and its kin, whatever follows the digits.
std::optional<Epoch> epoch_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  Epoch epoch = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), epoch);
  if (error != std::errc{} || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return epoch;
}

void make_directory(const std::filesystem::path& path) {
  std::error_code why;
  std::filesystem::create_directories(path, why);
  if (why) throw Error(fmt::format("cannot make the directory {}: {}", path.string(), why.message()));
}

}  // namespace

bool RunDirectory::holds_a_run(const std::filesystem::path& directory) {
  std::error_code unreadable;
  return std::filesystem::exists(directory / "journal", unreadable) ||
         std::filesystem::exists(directory / "manifest.json", unreadable);
}

RunDirectory::RunDirectory(std::filesystem::path directory, Open how) : directory_(std::move(directory)) {
  std::error_code why;
  if (std::filesystem::exists(directory_, why) && !std::filesystem::is_directory(directory_, why)) {
    throw Error(fmt::format("{} is a file: a run directory must be a directory", directory_.string()));
  }
  if (how == Open::Resume && !holds_a_run(directory_)) {
    throw Error(
        fmt::format("{} holds no run to resume (no journal and no manifest there): check the path, or start one with "
                    "hansa run CONFIG --run-dir {}",
                    directory_.string(), directory_.string()));
  }
  make_directory(directory_);
  lock();
  if (how == Open::Create && holds_a_run(directory_)) {
    throw Error(fmt::format("{} holds a run already: go on with it by hansa run --resume {}, or name another --run-dir",
                            directory_.string(), directory_.string()));
  }
  make_directory(directory_ / "versions");
}

void RunDirectory::lock() {
  const auto path = directory_ / "lock";
  lock_ = open_file(path, O_RDWR | O_CREAT);
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw_errno("lock", path);
    auto owner = read_file(path);
    owner.erase(std::find_if_not(owner.begin(), owner.end(), [](unsigned char c) { return std::isdigit(c) != 0; }),
                owner.end());
    throw Error(fmt::format("{} is in use by {}: wait until that run has ended, stop it, or name another --run-dir",
                            directory_.string(),
                            owner.empty() ? std::string("another coordinator") : "process " + owner));
  }
  // Of a coordinator that was killed. Gone before the lock names its new owner, so an address found after that is the owner's.
  std::error_code missing_is_fine;
  std::filesystem::remove(directory_ / "address", missing_is_fine);
  // The process that holds the lock names itself; what an earlier one wrote is longer or shorter, so cut first.
  if (ftruncate(lock_.get(), 0) != 0) throw_errno("shorten", path);
  const auto owner = fmt::format("{}\n", getpid());
  write_all_at(lock_.get(), 0, std::as_bytes(std::span(owner)), path);
}

std::filesystem::path RunDirectory::version(Epoch epoch, std::string_view view) const {
  return directory_ / "versions" / file_name(epoch, of_view(view, kVersion));
}
std::filesystem::path RunDirectory::served(Epoch epoch, std::string_view view) const {
  return directory_ / "versions" / file_name(epoch, of_view(view, kServed));
}
std::filesystem::path RunDirectory::part(Epoch epoch, std::string_view view) const {
  return directory_ / "versions" / file_name(epoch, of_view(view, kPart));
}
std::filesystem::path RunDirectory::log(Epoch epoch) const { return directory_ / "versions" / file_name(epoch, kLog); }
std::filesystem::path RunDirectory::snapshot(Epoch epoch) const {
  return directory_ / "versions" / file_name(epoch, kSnapshot);
}
std::filesystem::path RunDirectory::state(Epoch epoch) const {
  return directory_ / "versions" / file_name(epoch, kState);
}
std::filesystem::path RunDirectory::components(Epoch epoch) const {
  return directory_ / "versions" / file_name(epoch, kComponents);
}

std::vector<Epoch> RunDirectory::versions() const {
  std::vector<Epoch> present;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "versions")) {
    const auto epoch = epoch_of(entry.path().filename().string());
    if (epoch && entry.path() == version(*epoch)) present.push_back(*epoch);
  }
  std::sort(present.begin(), present.end());
  return present;
}

std::vector<Epoch> RunDirectory::logs() const {
  std::vector<Epoch> present;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "versions")) {
    const auto epoch = epoch_of(entry.path().filename().string());
    if (epoch && entry.path() == log(*epoch)) present.push_back(*epoch);
  }
  std::sort(present.begin(), present.end());
  return present;
}

std::optional<Epoch> RunDirectory::newest_snapshot() const {
  std::optional<Epoch> newest;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "versions")) {
    const auto epoch = epoch_of(entry.path().filename().string());
    if (epoch && entry.path() == snapshot(*epoch) && (!newest || *newest < *epoch)) newest = epoch;
  }
  return newest;
}

void RunDirectory::drop_logs(Epoch up_to) const {
  std::error_code missing_is_fine;
  std::vector<std::filesystem::path> going;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "versions")) {
    const auto epoch = epoch_of(entry.path().filename().string());
    if (!epoch) continue;
    if (entry.path() == log(*epoch) && *epoch <= up_to) going.push_back(entry.path());
    if (entry.path() == snapshot(*epoch) && *epoch < up_to) going.push_back(entry.path());
  }
  for (const auto& path : going) std::filesystem::remove(path, missing_is_fine);
}

std::string RunDirectory::secret(std::string_view name) const {
  const auto directory = directory_ / "secrets";
  make_directory(directory);
  std::error_code unsupported;
  std::filesystem::permissions(directory, std::filesystem::perms::owner_all, unsupported);
  const auto path = directory / name;
  if (!std::filesystem::exists(path)) write_file_atomically(path, random_bytes(kSecretBytes), Durability::Power, 0600);
  auto bytes = read_file(path);
  if (bytes.size() != kSecretBytes) {
    throw Error(
        fmt::format("{} must hold {} bytes and holds {}: restore it from a copy, or start again in a new run directory",
                    path.string(), kSecretBytes, bytes.size()));
  }
  return bytes;
}

void RunDirectory::keep_versions(Epoch newest, std::int64_t count) const {
  const auto kept = static_cast<Epoch>(std::max<std::int64_t>(count, 1));
  const Epoch oldest = newest + 1 > kept ? newest + 1 - kept : 0;
  std::vector<std::filesystem::path> going;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "versions")) {
    const auto epoch = epoch_of(entry.path().filename().string());
    if (!epoch) continue;
    const auto extension = entry.path().extension().string();
    const bool log_kind = extension == kLog || extension == kSnapshot;
    const bool whole = log_kind || extension == kVersion || extension == kServed || extension == kPart ||
                       extension == kState || extension == kComponents;
    if (!whole || (*epoch < oldest && !log_kind) || *epoch > newest) going.push_back(entry.path());
  }
  std::error_code missing_is_fine;
  for (const auto& path : going) std::filesystem::remove(path, missing_is_fine);
}

}  // namespace hansa
