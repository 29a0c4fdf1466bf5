#include "node/holdings.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "tensor/packet.hpp"

namespace hansa::node {
namespace {

constexpr std::string_view kVersion = "version.hansa", kPart = "part-", kLog = "log-", kIncoming = "incoming";

}  // namespace

Holdings::Holdings(std::filesystem::path directory) : directory_(std::move(directory)) {
  std::filesystem::create_directories(directory_);
  std::vector<std::filesystem::path> old;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with(kPart) || name.starts_with(kLog) || name == kIncoming) old.push_back(entry.path());
  }
  for (const auto& path : old) std::filesystem::remove(path);
}

void Holdings::forget() {
  for (const auto& packet : standing_.packets) {
    if (packet.filename() != kVersion) std::filesystem::remove(packet);  // its pages are used again
  }
  for (const auto& entry : standing_.log) std::filesystem::remove(entry.file);
  standing_ = {};
  epoch_ = kNothing;
}

bool Holdings::take(const wire::PullInfo& pull, const std::function<bool(const WriteAt&)>& transfer) {
  epoch_ = kNothing;
  const bool whole = pull.channel == wire::kPullVersion;
  // A whole version goes over the one before, which nothing maps between two pieces of work: its pages need not be made anew.
  const auto path = directory_ / (whole ? kVersion : kIncoming);
  {
    const auto file = open_file(path, O_WRONLY | O_CREAT);
    if (!transfer([&](std::uint64_t offset, std::span<const std::byte> bytes) {
          write_all_at(file.get(), offset, bytes, path);
        }))
      return false;
    if (ftruncate(file.get(), static_cast<off_t>(pull.blob.size)) != 0) throw_errno("set the length of", path);
  }
  if (whole) {
    for (const auto& part : standing_.packets) {
      if (part != path) std::filesystem::remove(part);
    }
    standing_.packets = {path};
  } else if (pull.channel == wire::kPullPart) {
    keep_part(path);
  } else {
    const bool anew = pull.channel == wire::kPullSnapshot;
    if (anew) {
      for (const auto& entry : standing_.log) std::filesystem::remove(entry.file);
      standing_.log.clear();
    }
    const auto kept = directory_ / fmt::format("{}{}", kLog, pull.to_epoch);
    std::filesystem::rename(path, kept);
    standing_.log.push_back({pull.to_epoch, anew, kept});
  }
  return true;
}

// Parts with the same tensors replace each other, so a trainer that alternates between two halves leaves two files, not one
// for every round.
void Holdings::keep_part(const std::filesystem::path& incoming) {
  std::string names;
  {
    const MappedFile file(incoming);
    const PacketView view(file.bytes());
    for (const auto& channel : view.contents().channels) {
      for (const auto& entry : channel.entries) names += channel.name + "/" + entry.name + "\n";
    }
  }
  const auto kept = directory_ / fmt::format("{}{:016x}", kPart, xxh3_64(names));
  std::filesystem::rename(incoming, kept);
  std::erase(standing_.packets, kept);
  standing_.packets.push_back(kept);
}

}  // namespace hansa::node
