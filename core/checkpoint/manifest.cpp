#include "checkpoint/manifest.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace hansa {
namespace {

using nlohmann::json;

constexpr std::size_t kReadBytes = 1 << 20;
constexpr int kRevision = 1;

std::filesystem::path previous_of(const std::filesystem::path& path) {
  return path.parent_path() / (path.stem().string() + ".previous" + path.extension().string());
}

json facts_to_json(const FileFacts& facts) { return {{"size", facts.size}, {"xxh3", facts.checksum.hex()}}; }
FileFacts facts_from_json(const json& from) {
  return {from.at("size"), Checksum::from_hex(from.at("xxh3").get<std::string>())};
}
std::string digest(const json& body) {
  const auto text = body.dump();
  return xxh3_128(std::as_bytes(std::span(text))).hex();
}

std::string to_text(const Manifest& manifest) {
  const json body{{"revision", kRevision},
                  {"run_id", manifest.run_id},
                  {"epoch", manifest.epoch},
                  {"round", manifest.round},
                  {"version", facts_to_json(manifest.version)},
                  {"state", facts_to_json(manifest.state)},
                  {"events_offset", manifest.events_offset},
                  {"metrics_offset", manifest.metrics_offset},
                  {"notes", manifest.notes}};
  return json{{"manifest", body}, {"xxh3", digest(body)}}.dump(2) + "\n";
}

Result<Manifest> read(const std::filesystem::path& path) {
  using Read = Result<Manifest>;
  if (!std::filesystem::exists(path)) return Read::failure(fmt::format("{} is missing", path.string()));
  try {
    const auto whole = json::parse(read_file(path));
    const auto& body = whole.at("manifest");
    if (digest(body) != whole.at("xxh3").get<std::string>()) {
      return Read::failure(fmt::format("{} does not match its checksum", path.string()));
    }
    if (body.at("revision") != kRevision) {
      return Read::failure(fmt::format("{} was written by another version of hansa", path.string()));
    }
    return Manifest{body.at("run_id"),
                    body.at("epoch"),
                    body.at("round"),
                    facts_from_json(body.at("version")),
                    facts_from_json(body.at("state")),
                    body.at("events_offset"),
                    body.at("metrics_offset"),
                    body.at("notes").get<std::map<std::string, std::string>>()};
  } catch (const std::exception& why) {
    return Read::failure(fmt::format("{} cannot be read: {}", path.string(), why.what()));
  }
}

}  // namespace

void write_manifest(const std::filesystem::path& path, const Manifest& manifest, Durability durability) {
  const auto text = to_text(manifest);
  // The new one is written first, so that a full disk leaves all as it was. Only a whole one may become the previous one: a
  // damaged file must not push out the last good copy. A second name rather than a move, so that `path` is never missing.
  auto fresh = path, second_name = path;
  fresh += ".new";
  second_name += ".old";
  write_file_atomically(fresh, text, durability);
  if (read(path)) {
    std::error_code why;
    std::filesystem::remove(second_name, why);
    std::filesystem::create_hard_link(path, second_name, why);
    if (why) throw Error(fmt::format("cannot give {} a second name: {}", path.string(), why.message()));
    rename_into_place(second_name, previous_of(path), durability);
  }
  rename_into_place(fresh, path, durability);
}

std::optional<LoadedManifest> load_manifest(const std::filesystem::path& path) {
  auto newest = read(path);
  if (newest) return LoadedManifest{std::move(newest).value(), ""};
  auto previous = read(previous_of(path));
  if (previous) {
    auto note = fmt::format("{}: the checkpoint before it is used (epoch {})", newest.error(), previous.value().epoch);
    return LoadedManifest{std::move(previous).value(), std::move(note)};
  }
  if (!std::filesystem::exists(path) && !std::filesystem::exists(previous_of(path))) return std::nullopt;
  throw Error(fmt::format("no whole checkpoint: {}; {}. Restore one from a copy, or start again in a new run directory",
                          newest.error(), previous.error()));
}

FileFacts facts_of(const std::filesystem::path& path) {
  const auto fd = open_file(path, O_RDONLY);
  std::vector<std::byte> buffer(kReadBytes);
  RunningChecksum running;
  FileFacts facts;
  for (;;) {
    const auto got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read", path);
    if (got == 0) break;
    running.add(std::span(buffer).first(static_cast<std::size_t>(got)));
    facts.size += static_cast<std::uint64_t>(got);
  }
  facts.checksum = running.value();
  return facts;
}

void require_facts(const std::filesystem::path& path, const FileFacts& expected) {
  const auto found = facts_of(path);
  if (found == expected) return;
  const auto what =
      found.size != expected.size
          ? fmt::format("it has {} bytes instead of {}", found.size, expected.size)
          : fmt::format("its checksum is {} instead of {}", found.checksum.hex(), expected.checksum.hex());
  throw Error(fmt::format(
      "{} is not the file that the checkpoint names: {}. Restore it from a copy, or start again in a new run directory",
      path.string(), what));
}

}  // namespace hansa
