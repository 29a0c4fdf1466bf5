#include "data/token_cache.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace hansa::data {

namespace {

namespace fs = std::filesystem;
constexpr const char *kIds = "ids", *kExamples = "examples", *kManifest = "manifest.json";
constexpr std::size_t kBuffer = 1 << 20;

class BufferedFile {
 public:
  explicit BufferedFile(fs::path path)
      : path_(std::move(path)), fd_(open_file(path_, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) {}
  void add(std::span<const std::byte> bytes) {
    held_.insert(held_.end(), bytes.begin(), bytes.end());
    if (held_.size() >= kBuffer) flush();
  }
  void finish() {
    flush();
    if (fsync(fd_.get()) != 0) throw_errno("write", path_);
  }

 private:
  void flush() {
    write_all(fd_.get(), held_, path_);
    held_.clear();
  }
  fs::path path_;
  FileDescriptor fd_;
  std::vector<std::byte> held_;
};

class FileSink final : public TokenSink {
 public:
  explicit FileSink(fs::path directory)
      : directory_(std::move(directory)), ids_(directory_ / kIds), examples_file_(directory_ / kExamples) {}
  void finish(const Tally& tally) {
    ids_.finish();
    examples_file_.finish();
    const nlohmann::ordered_json manifest{{"ids", count_},
                                          {"examples", examples()},
                                          {"records", tally.records},
                                          {"skipped", tally.skipped},
                                          {"first_skipped", tally.first_skipped}};
    write_file_atomically(directory_ / kManifest, manifest.dump(1) + "\n", Durability::Power, 0600);
  }

 private:
  void put(std::span<const std::int32_t> ids, const Example& example) override {
    ids_.add(std::as_bytes(ids));
    examples_file_.add(std::as_bytes(std::span(&example, 1)));
    count_ += ids.size();
  }
  fs::path directory_;
  BufferedFile ids_, examples_file_;
  std::uint64_t count_ = 0;
};

// Nothing: there is no such entry, or one that was damaged.
std::optional<Tokens> opened(const fs::path& entry) {
  if (!fs::exists(entry / kManifest)) return std::nullopt;
  try {
    const auto manifest = nlohmann::json::parse(read_file(entry / kManifest));
    MappedFile ids(entry / kIds), examples(entry / kExamples);
    if (ids.bytes().size() != manifest.at("ids").get<std::uint64_t>() * sizeof(std::int32_t) ||
        examples.bytes().size() != manifest.at("examples").get<std::uint64_t>() * sizeof(Example))
      return std::nullopt;
    return Tokens(std::move(ids), std::move(examples),
                  {manifest.at("records"), manifest.at("skipped"), manifest.at("first_skipped")});
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Held until it goes out of scope, however the process ends.
class Lock {
 public:
  Lock(const fs::path& path, Host& host) : fd_(open_file(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    for (bool said = false; flock(fd_.get(), LOCK_EX | LOCK_NB) != 0;) {
      if (errno != EWOULDBLOCK && errno != EINTR) throw_errno("lock", path);
      if (host.cancelled()) throw Error("cancelled while another process was tokenising the same text");
      if (!std::exchange(said, true))
        host.log(Host::Level::Info, "waiting for another process that tokenises this text");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

 private:
  FileDescriptor fd_;
};

}  // namespace

fs::path default_cache_folder() {
  const auto named = [](const char* variable) -> fs::path {
    const char* value = std::getenv(variable);
    return value && *value ? value : "";
  };
  if (const auto own = named("HANSA_CACHE_DIR"); !own.empty()) return own / "tokens";
  if (const auto common = named("XDG_CACHE_HOME"); !common.empty()) return common / "hansa" / "tokens";
  if (const auto home = named("HOME"); !home.empty()) return home / ".cache" / "hansa" / "tokens";
  throw Error("no place for the token cache: neither HANSA_CACHE_DIR nor HOME is set. Set one, or cache = \"off\"");
}

Tokens TokenCache::get(const std::string& key, const std::function<Tally(TokenSink&)>& build) {
  const auto entry = folder_ / key, part = folder_ / (key + ".part");
  if (auto found = opened(entry)) return std::move(*found);
  if (!fs::exists(folder_)) {
    std::error_code failed;
    fs::create_directories(folder_, failed);
    if (failed)
      throw Error(
          fmt::format("the token cache {} cannot be made: {}. Name another folder (cache = \"…\"), or "
                      "cache = \"off\"",
                      folder_.string(), failed.message()));
    fs::permissions(folder_, fs::perms::owner_all, failed);
  }
  const Lock lock(folder_ / (key + ".lock"), host_);
  if (auto found = opened(entry)) return std::move(*found);  // made meanwhile
  try {
    fs::remove_all(part);
    fs::create_directory(part);
    FileSink sink(part);
    sink.finish(build(sink));
    fs::remove_all(entry);  // a damaged one
    rename_into_place(part, entry, Durability::Power);
  } catch (const DiskFull& full) {
    std::error_code ignored;
    fs::remove_all(part, ignored);
    throw DiskFull(
        fmt::format("{}. Name another folder for the token cache (cache = \"…\"), or keep the tokens in memory "
                    "(cache = \"off\")",
                    full.what()));
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(part, ignored);
    throw;
  }
  if (auto found = opened(entry)) return std::move(*found);
  throw Error(fmt::format("the token cache's entry {} cannot be read back", entry.string()));
}

}  // namespace hansa::data
