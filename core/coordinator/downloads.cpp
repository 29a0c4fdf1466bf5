// What nodes fetch: versions, the parts of them that moved, the log and its snapshots. Part of the engine; with its mutex
// held unless it says otherwise.
#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "coordinator/engine.hpp"
#include "coordinator/session.hpp"
#include "fold/packet_file.hpp"
#include "fold/served.hpp"
#include "tensor/bridge.hpp"

namespace hansa::coordinator {
namespace {

constexpr Epoch kNothing = ~Epoch{0};  // what a node holds that holds no version

// Counts what is served, so that the report can say what a round costs in bytes.
class CountingSource final : public wire::ByteSource {
 public:
  CountingSource(std::shared_ptr<const MappedFile> file, std::atomic<std::uint64_t>& served)
      : source_(std::move(file)), served_(served) {}
  std::uint64_t size() const override { return source_.size(); }
  std::span<const std::byte> read(std::uint64_t offset, std::uint64_t count) const override {
    served_ += count;
    return source_.read(offset, count);
  }

 private:
  wire::MappedSource source_;
  std::atomic<std::uint64_t>& served_;
};

}  // namespace

// Without the mutex: it may encode a whole model, and touches nothing but files that nobody asks for yet.
void Engine::prepare_downloads(Epoch epoch) const {
  const auto seed = pipeline::down_seed(static_cast<std::uint64_t>(spec_.run.seed));
  const auto& directory = setup_.directory;
  for (const auto& view : views_) {
    auto whole = directory.version(epoch, view.name);
    if (!stages_.downlink.empty()) {
      const auto served = directory.served(epoch, view.name);
      const auto before = epoch > 0 ? directory.served(epoch - 1, view.name) : std::filesystem::path();
      if (!std::filesystem::exists(served))
        fold::write_served(whole, before, stages_.downlink, seed, served, durability_);
      whole = served;
    }
    const auto part = directory.part(epoch, view.name);
    if (epoch > 0 && !std::filesystem::exists(part)) fold::write_part(whole, part, durability_);
  }
}

void Engine::add_pull(wire::WorkOffer& offer, std::string_view what, Epoch from, Epoch to,
                      const std::filesystem::path& path) {
  auto& served = served_[path];
  if (!served.file) {
    served.file = std::make_shared<const MappedFile>(path);
    const auto& known = machine_->version();  // hashing a large version takes time, and the fold has done it
    const bool plain = known && known->epoch == to && path == setup_.directory.version(to);
    served.checksum = plain ? known->checksum : facts_of(path).checksum;
  }
  offer.info.pulls.push_back(
      {std::string(what), from, to, {served.checksum, served.file->bytes().size(), kPacketVersion}});
  offer.sources.push_back(std::make_shared<CountingSource>(served.file, bytes_down_));
}

void Engine::add_pulls(wire::WorkOffer& offer, const pipeline::View& view, Epoch holds, Epoch target) {
  if (holds == target) return;
  const auto& directory = setup_.directory;
  const auto& down = orders_.at(view.name).order.exchange.down;
  if (std::any_of(down.begin(), down.end(), [](const auto& channel) { return channel.keep == Keep::Latest; })) {
    const auto part = directory.part(target, view.name);
    const auto standing = standing_of(directory, target, view.name);
    if (holds != kNothing && holds + 1 == target && std::filesystem::exists(part))
      add_pull(offer, wire::kPullPart, holds, target, part);
    else
      add_pull(offer, wire::kPullVersion, 0, target, standing.packets.front());
  }
  // Everybody goes on from a snapshot as soon as there is one: a node that computed with the entries behind it would get the
  // same numbers only up to rounding.
  Epoch from = holds == kNothing ? 0 : holds;
  if (const auto snapshot = directory.newest_snapshot(); snapshot && (holds == kNothing || holds < *snapshot)) {
    from = *snapshot;
    add_pull(offer, wire::kPullSnapshot, 0, from, directory.snapshot(from));
  }
  for (const auto entry : directory.logs()) {
    if (entry > from && entry <= target) add_pull(offer, wire::kPullLog, entry - 1, entry, directory.log(entry));
  }
}

// Where the log has become long, a version comes with a snapshot that says all of it. Without the mutex; a function of the
// files that lead to the version, so a restart makes the same one.
void Engine::compact_log(Epoch epoch) const {
  const auto& directory = setup_.directory;
  const auto last = directory.newest_snapshot().value_or(0);
  if (last >= epoch) return;  // a restart came after it
  const auto logs = directory.logs();
  const auto count = std::count_if(logs.begin(), logs.end(), [&](Epoch one) { return one > last && one <= epoch; });
  if (count < spec_.run.compact_log_after) return;
  const auto standing = standing_of(directory, epoch);
  std::vector<MappedFile> files;
  std::map<std::string, std::vector<Download>> entries;
  for (const auto& one : standing.log) files.emplace_back(one.file);
  std::vector<PacketView> views;
  for (const auto& file : files) views.emplace_back(file.bytes());
  for (std::size_t i = 0; i < views.size(); ++i) {
    for (auto& download : fold::downloads_of(views[i], standing.log[i].epoch)) {
      download.anew = i == 0;
      entries[download.channel].push_back(std::move(download));
    }
  }
  PacketContents contents;
  contents.meta["epoch"] = std::to_string(epoch);
  std::vector<at::Tensor> tensors;
  for (const auto& [channel, all] : entries) {
    auto one = guard(stages_.aggregator, {.doing = "compact", .tensor = channel},
                     [&](Aggregator& rule) { return rule.compact(channel, all); });
    if (!one) return;  // this rule's log is never compacted
    PacketChannel packed{channel, {}};
    for (auto& [name, tensor] : *one) {
      tensors.push_back(tensor.contiguous());
      packed.entries.push_back({name, raw_code(dtype_of(tensor.scalar_type()), tensor.sizes().vec())});
    }
    contents.channels.push_back(std::move(packed));
  }
  fold::PacketFileWriter file(directory.snapshot(epoch), std::move(contents), durability_);
  std::size_t next = 0;
  for (const auto& channel : file.plan().contents().channels) {
    for (const auto& entry : channel.entries) file.put(entry.code, 0, bytes_of(tensors[next++]));
  }
  file.finish();
}

}  // namespace hansa::coordinator
