#include "fold/served.hpp"

#include <algorithm>
#include <memory>
#include <set>

#include <fcntl.h>
#include <fmt/format.h>

#include "base/rng.hpp"
#include "fold/views.hpp"
#include "tensor/bridge.hpp"

namespace hansa::fold {
namespace {

std::set<std::string, std::less<>> moved_of(const PacketView& view) {
  std::set<std::string, std::less<>> moved;
  const auto text = view.meta("moved").value_or("*");
  if (text == "*") {
    for (const auto& channel : view.contents().channels) {
      for (const auto& entry : channel.entries) moved.insert(fmt::format("{}/{}", channel.name, entry.name));
    }
    return moved;
  }
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    moved.insert(text.substr(at, end - at));
    at = end + 1;
  }
  return moved;
}

class PacketStream {  // a packet written in order under a temporary name
 public:
  PacketStream(std::filesystem::path out, const PacketPlan& plan, Durability durability)
      : out_(std::move(out)), temporary_(out_.string() + ".tmp"), durability_(durability) {
    file_ = open_file(temporary_, O_WRONLY | O_CREAT | O_TRUNC);
    writer_.emplace(plan, [this](std::span<const std::byte> bytes) {
      write_all_at(file_.get(), written_, bytes, temporary_);
      written_ += bytes.size();
    });
  }
  void write(std::span<const std::byte> bytes) { writer_->write(bytes); }
  void finish() {
    writer_->finish();
    rename_into_place(temporary_, out_, durability_);
  }

 private:
  std::filesystem::path out_, temporary_;
  Durability durability_;
  FileDescriptor file_;
  std::uint64_t written_ = 0;
  std::optional<PacketWriter> writer_;
};

void copy_leaves(const PacketView& from, const Code& code, PacketStream& to) {
  if (!code.coded) return to.write(from.bytes(code));
  for (const auto& part : code.parts) copy_leaves(from, part, to);
}

}  // namespace

void write_served(const std::filesystem::path& version, const std::filesystem::path& before, const CodecChain& downlink,
                  std::uint64_t down_seed, const std::filesystem::path& out, Durability durability) {
  const MappedPacket whole(version);
  std::unique_ptr<MappedPacket> last;
  if (!before.empty() && std::filesystem::exists(before)) last = std::make_unique<MappedPacket>(before);
  const auto moved = moved_of(whole.view());
  const auto epoch = std::stoull(whole.view().meta("epoch").value_or("0"));
  const auto kept = [&](const std::string& channel, const std::string& name) -> const Code* {
    return last && !moved.contains(fmt::format("{}/{}", channel, name)) ? last->find(channel, name) : nullptr;
  };
  const auto encode = [&](const std::string& channel, const std::string& name) {
    const Seeds seeds{down_tensor_seed(down_seed, channel, name),
                      derive_seed(down_tensor_seed(down_seed, channel, name), "own", {epoch})};
    // A round makes one version, so the number of the version is that of the round.
    return downlink.encode(whole.tensor(channel, name), seeds, {.round = epoch, .tensor = name});
  };
  // Sizes first, bytes second: encoding is a function of its seeds, and a whole encoded model need not stand in memory.
  PacketContents contents;
  contents.meta = whole.view().contents().meta;
  for (const auto& channel : whole.view().contents().channels) {
    PacketChannel packed{channel.name, {}};
    for (const auto& entry : channel.entries) {
      const auto* same = kept(channel.name, entry.name);
      packed.entries.push_back({entry.name, same ? *same : encode(channel.name, entry.name).code});
    }
    contents.channels.push_back(std::move(packed));
  }
  const PacketPlan plan(std::move(contents));
  PacketStream stream(out, plan, durability);
  for (const auto& channel : plan.contents().channels) {
    for (const auto& entry : channel.entries) {
      if (const auto* same = kept(channel.name, entry.name)) {
        copy_leaves(last->view(), *same, stream);
      } else {
        for (const auto& leaf : encode(channel.name, entry.name).leaves) stream.write(bytes_of(leaf));
      }
    }
  }
  stream.finish();
}

bool write_part(const std::filesystem::path& whole, const std::filesystem::path& out, Durability durability) {
  const MappedPacket from(whole);
  const auto moved = moved_of(from.view());
  PacketContents contents;
  contents.meta = from.view().contents().meta;
  bool all = true;
  std::vector<const Code*> order;
  for (const auto& channel : from.view().contents().channels) {
    PacketChannel packed{channel.name, {}};
    for (const auto& entry : channel.entries) {
      if (!moved.contains(fmt::format("{}/{}", channel.name, entry.name))) {
        all = false;
        continue;
      }
      packed.entries.push_back(entry);
      order.push_back(&entry.code);
    }
    if (!packed.entries.empty()) contents.channels.push_back(std::move(packed));
  }
  if (all) return false;
  const PacketPlan plan(std::move(contents));
  PacketStream stream(out, plan, durability);
  for (const auto* code : order) copy_leaves(from.view(), *code, stream);
  stream.finish();
  return true;
}

struct Held::Open {
  explicit Open(const std::filesystem::path& path) : packet(path) {}
  MappedPacket packet;
};

Held::Held(const std::vector<std::filesystem::path>& packets, const CodecChain& downlink, std::uint64_t down_seed,
           CallPlace where)
    : downlink_(&downlink), down_seed_(down_seed), where_(where) {
  for (const auto& path : packets) packets_.push_back(std::make_unique<Open>(path));
}
Held::~Held() = default;
Held::Held(Held&&) noexcept = default;

at::Tensor Held::tensor(std::string_view channel, const TensorSpec& spec) const {
  for (auto at = packets_.rbegin(); at != packets_.rend(); ++at) {
    const auto& packet = (*at)->packet;
    const auto* code = packet.find(channel, spec.name);
    if (!code) continue;
    return downlink_->decode(packet.view(), *code, spec, down_tensor_seed(down_seed_, channel, spec.name), where_);
  }
  return {};
}

NamedTensors Held::channel(std::string_view name) const {
  NamedTensors tensors;
  for (const auto& open : packets_) {
    const auto* held = open->packet.view().find(name);
    if (!held) continue;
    for (const auto& entry : held->entries)
      tensors.emplace_back(entry.name, tensor(name, {entry.name, entry.code.dtype, entry.code.shape}));
    return tensors;
  }
  return tensors;
}

std::vector<Download> downloads_of(const PacketView& view, Epoch epoch) {
  std::vector<Download> downloads;
  for (const auto& channel : view.contents().channels) {
    Download one{channel.name, epoch, false, {}};
    for (const auto& entry : channel.entries) one.tensors.emplace_back(entry.name, view_as_tensor(view, entry.code));
    downloads.push_back(std::move(one));
  }
  return downloads;
}

}  // namespace hansa::fold
