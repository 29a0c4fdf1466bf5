#include "fold/log_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include <ATen/ops/isfinite.h>
#include <fmt/format.h>
#include <hansa/layouts.hpp>

#include "tensor/bridge.hpp"

namespace hansa::fold {

LogFile::LogFile(std::filesystem::path final_name, const std::vector<Channel>& down, Durability durability)
    : final_name_(std::move(final_name)), down_(down), durability_(durability) {
  waiting_name_ = final_name_;
  waiting_name_ += ".waiting.tmp";
}

LogFile::~LogFile() {
  if (waiting_.get() >= 0) unlink(waiting_name_.c_str());
}

void LogFile::append(std::string_view channel, std::string_view tensor, const at::Tensor& value) {
  const auto* to = find_channel(down_, channel);
  if (!to || channel == kAdapterChannel)
    throw Error(fmt::format("it appended to '{}', which is no down channel of its exchange", channel));
  const auto spec = std::find_if(to->layout.tensors.begin(), to->layout.tensors.end(),
                                 [&](const auto& one) { return one.name == tensor; });
  if (spec == to->layout.tensors.end())
    throw Error(fmt::format("it appended '{}', which channel '{}' does not have", tensor, channel));
  const auto plain = value.contiguous();
  const auto code = raw_code(dtype_of(plain.scalar_type()), plain.sizes().vec());
  if (auto why = difference({to->name, {{spec->name, code}}}, {{*spec}, {}}))
    throw Error(fmt::format("it appended to channel '{}' what does not fit: {}", channel, *why));
  if (plain.is_floating_point() && !at::isfinite(plain).all().item<bool>())
    throw Error(fmt::format("what it appended as {} is not finite; nothing was released", tensor));
  if (moved(channel, tensor)) throw Error(fmt::format("it appended '{}' twice in one round", tensor));
  if (waiting_.get() < 0) waiting_ = open_file(waiting_name_, O_RDWR | O_CREAT | O_TRUNC);
  const auto bytes = bytes_of(plain);
  write_all_at(waiting_.get(), size_, bytes, waiting_name_);
  entries_.push_back({to, spec->name, code.dtype, code.shape, size_, bytes.size()});
  size_ += bytes.size();
}

bool LogFile::moved(std::string_view channel, std::string_view tensor) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const auto& one) { return one.channel->name == channel && one.tensor == tensor; });
}

std::vector<std::byte> LogFile::latest(std::string_view channel, std::string_view tensor) const {
  for (const auto& one : entries_) {
    if (one.channel->name == channel && one.tensor == tensor) return read(one);
  }
  return {};
}

std::vector<std::byte> LogFile::read(const Entry& entry) const {
  std::vector<std::byte> bytes(entry.bytes);
  for (std::uint64_t done = 0; done < bytes.size();) {
    const auto got =
        pread(waiting_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(entry.offset + done));
    if (got <= 0) throw_errno("read", waiting_name_);
    done += static_cast<std::uint64_t>(got);
  }
  return bytes;
}

void LogFile::write(Epoch epoch) {
  PacketContents contents;
  contents.meta["epoch"] = std::to_string(epoch);
  std::vector<const Entry*> order;
  for (const auto& channel : down_) {
    if (channel.keep != Keep::Log) continue;
    PacketChannel packed{channel.name, {}};
    for (const auto& entry : entries_) {
      if (entry.channel != &channel) continue;
      packed.entries.push_back({entry.tensor, raw_code(entry.dtype, entry.shape)});
      order.push_back(&entry);
    }
    if (!packed.entries.empty()) contents.channels.push_back(std::move(packed));
  }
  if (order.empty()) return;
  PacketFileWriter file(final_name_, std::move(contents), durability_);
  std::size_t next = 0;
  for (const auto& channel : file.plan().contents().channels) {
    for (const auto& entry : channel.entries) file.put(entry.code, 0, read(*order[next++]));
  }
  file.finish();
}

}  // namespace hansa::fold
