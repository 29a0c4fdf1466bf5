#include "fold/views.hpp"

#include <cstring>

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <fmt/format.h>
#include <hansa/layouts.hpp>

#include "base/rng.hpp"
#include "tensor/bridge.hpp"

namespace hansa::fold {

MappedPacket::MappedPacket(const std::filesystem::path& path) : path_(path), file_(path), view_(file_.bytes()) {
  for (const auto& channel : view_.contents().channels) {
    for (const auto& entry : channel.entries) index_[{channel.name, entry.name}] = &entry.code;
  }
}

const Code* MappedPacket::find(std::string_view channel, std::string_view tensor) const {
  const auto found = index_.find({channel, tensor});
  return found == index_.end() ? nullptr : found->second;
}

const Code& MappedPacket::code(std::string_view channel, std::string_view tensor) const {
  const auto* found = find(channel, tensor);
  if (!found) throw Error(fmt::format("{} holds no '{}' in channel '{}'", path_.string(), tensor, channel));
  return *found;
}

at::Tensor MappedPacket::tensor(std::string_view channel, std::string_view name) const {
  return view_as_tensor(view_, code(channel, name));
}

OpenView::OpenView(const FoldView& view, const CodecChain& downlink, std::uint64_t down_seed, Round round)
    : plan(view),
      shared(find_channel(view.exchange.up, kAdapterChannel)),
      base(view.base),
      sent_(view.sent.empty() ? nullptr : std::make_unique<MappedPacket>(view.sent)),
      downlink_(downlink),
      down_seed_(down_seed),
      round_(round) {}

at::Tensor OpenView::sent(std::string_view channel, const TensorSpec& spec) const {
  if (!sent_) return base.tensor(channel, spec.name);
  return downlink_.decode(sent_->view(), sent_->code(channel, spec.name), spec,
                          down_tensor_seed(down_seed_, channel, spec.name), {.round = round_});
}

OpenClient::OpenClient(const FoldClient& one, const OpenView& its_view, const CodecChain& codecs,
                       std::uint64_t common_seed, CallPlace where)
    : client(one),
      view(its_view),
      file_(one.spool),
      packet_(file_.bytes()),
      codecs_(codecs),
      common_seed_(common_seed),
      where_(where) {
  for (const auto& channel : view.plan.exchange.up) {
    const auto* held = packet_.find(channel.name);
    if (!held) throw Error(fmt::format("{} holds no channel '{}'", one.spool.string(), channel.name));
    if (auto why = difference(*held, channel.layout)) throw Error(fmt::format("{}: {}", one.spool.string(), *why));
  }
}

const Code& OpenClient::code(const Channel& channel, Index index) const {
  return packet_.find(channel.name)->entries.at(index).code;
}

at::Tensor OpenClient::tensor(const Channel& channel, Index index) const {
  const auto& held = code(channel, index);
  if (channel.carry == Carry::Collect) return view_as_tensor(packet_, held);
  auto decoded = codecs_.decode(packet_, held, channel.layout.tensors[index],
                                tensor_seed(common_seed_, channel.name, index), where_);
  return client.factor == 1 ? decoded : decoded.mul(client.factor);
}

at::Tensor OpenClient::slice(const Channel& channel, Index index, std::int64_t first, std::int64_t count) const {
  const auto& held = code(channel, index);
  // A copy: a view would keep the whole decoded tensor, and rules hold a slice of every client at once.
  if (held.coded) return tensor(channel, index).flatten().narrow(0, first, count).clone();
  const auto bytes = packet_.elements(held, first, count);
  auto copy = at::empty({count}, at::kFloat);  // a range need not be aligned; sums must not depend on that
  if (count > 0) std::memcpy(copy.data_ptr<float>(), bytes.data(), bytes.size());
  return client.factor == 1 ? copy : copy.mul_(client.factor);
}

std::uint64_t down_tensor_seed(std::uint64_t down_seed, std::string_view channel, std::string_view tensor) {
  return derive_seed(derive_seed(down_seed, channel, {}), tensor, {});
}

}  // namespace hansa::fold
