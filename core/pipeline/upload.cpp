#include "pipeline/upload.hpp"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "base/file.hpp"
#include "tensor/bridge.hpp"
#include "tensor/reduce.hpp"

namespace hansa::pipeline {
namespace {

bool is_change(const Channel& channel) { return channel.carry != Carry::Collect; }

PacketContents contents_of(const WorkOrder& order, const std::vector<std::vector<EncodedTensor>>& tensors) {
  PacketContents contents;
  for (std::size_t c = 0; c < order.exchange.up.size(); ++c) {
    const auto& channel = order.exchange.up[c];
    PacketChannel packed{channel.name, {}};
    for (std::size_t i = 0; i < tensors[c].size(); ++i)
      packed.entries.push_back({channel.layout.tensors[i].name, tensors[c][i].code});
    contents.channels.push_back(std::move(packed));
  }
  return contents;
}

double clip_factor(double norm, double bound) { return norm > bound ? bound / norm : 1.0; }

std::string memory_name(const Channel& channel, Index index) {
  return fmt::format("{}/{}", channel.name, channel.layout.tensors[index].name);
}

bool fits(const Channel& channel, const TensorSpec& spec, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.scalar_type() != scalar_type_of(spec.dtype)) return false;
  return !difference({channel.name, {{spec.name, raw_code(spec.dtype, tensor.sizes().vec())}}}, {{spec}, {}});
}

// What the trainer made is its own, also when it shows only here.
[[noreturn]] void blame_trainer(const NodeStages& stages, const WorkOrder& order, std::string_view tensor,
                                std::string_view why) {
  throw PluginFailure(std::string(stages.trainer),
                      {.doing = "train", .round = order.plan.round, .node = stages.node, .tensor = tensor}, why);
}
[[noreturn]] void not_finite(const NodeStages& stages, const WorkOrder& order, const std::string& name) {
  blame_trainer(stages, order, name,
                fmt::format("training made {} not finite (NaN or infinity); nothing was sent. Lower the learning rate, "
                            "or clip gradients (max_grad_norm)",
                            name));
}

void require_layout(const NodeStages& stages, const WorkOrder& order, const Channel& channel,
                    const std::vector<at::Tensor>& tensors) {
  const auto& specs = channel.layout.tensors;
  const auto why = fmt::format("the update's channel '{}' does not have the layout of the round", channel.name);
  if (tensors.size() != specs.size()) blame_trainer(stages, order, channel.name, why);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (!fits(channel, specs[i], tensors[i])) blame_trainer(stages, order, specs[i].name, why);
  }
}

// Adds what earlier rounds lost, and measures. Returns the joint norm of all changes.
SquaredNorm gather(const WorkOrder& order, std::vector<std::vector<at::Tensor>>& outgoing, const NodeStages& stages) {
  SquaredNorm norm;
  for (std::size_t c = 0; c < outgoing.size(); ++c) {
    const auto& channel = order.exchange.up[c];
    require_layout(stages, order, channel, outgoing[c]);
    if (!is_change(channel)) continue;
    for (Index i = 0; i < outgoing[c].size(); ++i) {
      auto& delta = outgoing[c][i];
      if (stages.feedback) {
        const auto memory = stages.feedback->memory.find(memory_name(channel, i), delta.sizes());
        if (memory.defined()) delta.add_(memory);
      }
      const auto one = squared_norm(delta);
      if (!one.all_finite()) not_finite(stages, order, channel.layout.tensors[i].name);
      norm += one;
    }
  }
  return norm;
}

class Encoder {  // one tensor after the other
 public:
  Encoder(const WorkOrder& order, NodeStages stages, Seeds seeds, double factor)
      : order_(order), stages_(stages), seeds_(seeds), factor_(factor) {}

  EncodedTensor change(const Channel& channel, Index index, at::Tensor delta, std::vector<at::Tensor>& decoded) {
    const auto& spec = channel.layout.tensors[index];
    const CallPlace where{.round = order_.plan.round, .node = stages_.node, .tensor = spec.name};
    const auto intended = stages_.feedback ? delta.clone() : at::Tensor();
    if (factor_ != 1) delta.mul_(factor_);
    if (stages_.privacy) {
      auto noising = where;
      noising.doing = "local noise";
      guard(stages_.privacy, noising,
            [&](Privacy& mechanism) { mechanism.local(channel.name, index, delta, stages_.noise); });
    }
    const Seeds own{tensor_seed(seeds_.common, channel.name, index), tensor_seed(seeds_.own, channel.name, index)};
    auto encoded = stages_.codecs.encode(delta, own, where);
    if (!stages_.feedback && channel.carry != Carry::Mean) return encoded;
    auto seen = stages_.codecs.decode(encoded, spec, own.common, where);
    if (stages_.feedback) {
      auto lost = intended.sub(seen);
      if (stages_.feedback->decay != 1) lost.mul_(stages_.feedback->decay);
      stages_.feedback->memory.set(memory_name(channel, index), std::move(lost));
    }
    if (channel.carry == Carry::Mean) decoded.push_back(std::move(seen));
    return encoded;
  }

 private:
  const WorkOrder& order_;
  NodeStages stages_;
  Seeds seeds_;
  double factor_;
};

void screen_channel(const PacketView& view, const Channel& channel, const CodecChain& codecs, std::uint64_t common_seed,
                    const CallPlace& where, SquaredNorm& norm) {
  const auto* held = view.find(channel.name);
  if (!held) throw Error(fmt::format("it holds no channel '{}'", channel.name));
  if (auto why = difference(*held, channel.layout)) throw Error(*why);
  for (Index i = 0; i < held->entries.size(); ++i) {
    const auto& entry = held->entries[i];
    const auto not_real = [&] { return Error(fmt::format("{} is not finite (NaN or infinity)", entry.name)); };
    if (!is_change(channel)) {
      if (entry.code.coded) throw Error(fmt::format("'{}' went through a codec, and must come as it is", entry.name));
      const auto value = view_as_tensor(view, entry.code);
      if (value.is_floating_point() && !at::isfinite(value).all().item<bool>()) throw not_real();
      continue;
    }
    const auto delta =
        codecs.decode(view, entry.code, channel.layout.tensors[i], tensor_seed(common_seed, channel.name, i), where);
    const auto one = squared_norm(delta);
    if (!one.all_finite()) throw not_real();
    norm += one;
  }
}

}  // namespace

EncodedUpdate::EncodedUpdate(const WorkOrder& order, std::vector<std::vector<EncodedTensor>> tensors)
    : plan_(contents_of(order, tensors)), tensors_(std::move(tensors)) {}

void EncodedUpdate::stream(const ByteSink& sink) const {
  PacketWriter writer(plan_, sink);
  for (const auto& channel : tensors_) {
    for (const auto& tensor : channel) {
      for (const auto& leaf : tensor.leaves) writer.write(bytes_of(leaf));
    }
  }
  writer.finish();
}

EncodedUpdate encode_update(const WorkOrder& order, std::vector<std::vector<at::Tensor>> outgoing, NodeStages stages,
                            Seeds seeds) {
  const at::NoGradGuard no_grad;
  if (outgoing.size() != order.exchange.up.size()) throw Error("the update does not have the channels of the round");
  const auto norm = gather(order, outgoing, stages);
  const double factor = clip_factor(norm.norm(), order.clip_bound);
  Encoder encoder(order, stages, seeds, factor);
  const CodecChain as_they_are;
  std::vector<std::vector<EncodedTensor>> encoded(outgoing.size());
  std::vector<std::vector<at::Tensor>> decoded(outgoing.size());
  for (std::size_t c = 0; c < outgoing.size(); ++c) {
    const auto& channel = order.exchange.up[c];
    for (Index i = 0; i < outgoing[c].size(); ++i) {
      auto tensor = std::move(outgoing[c][i]);
      encoded[c].push_back(is_change(channel) ? encoder.change(channel, i, std::move(tensor), decoded[c])
                                              : as_they_are.encode(tensor, {}));
    }
  }
  EncodedUpdate update(order, std::move(encoded));
  update.norm_before_clip = norm.norm();
  update.clip_factor = factor;
  update.decoded = std::move(decoded);
  return update;
}

Screened screen_upload(const std::filesystem::path& packet, const WorkOrder& order, const CodecChain& codecs,
                       std::uint64_t common_seed, std::optional<NodeId> node) {
  const at::NoGradGuard no_grad;
  const CallPlace where{.round = order.plan.round, .node = node};
  Screened verdict;
  const MappedFile file(packet);
  try {
    const PacketView view(file.bytes());
    if (view.contents().channels.size() != order.exchange.up.size())
      throw Error(fmt::format("it holds {} channels, and the round asked for {}", view.contents().channels.size(),
                              order.exchange.up.size()));
    SquaredNorm norm;
    for (const auto& channel : order.exchange.up) screen_channel(view, channel, codecs, common_seed, where, norm);
    verdict.norm = norm.norm();
    verdict.clip_factor = clip_factor(verdict.norm, order.clip_bound);
    verdict.accepted = true;
  } catch (const c10::Error& bad) {
    verdict.reason = fmt::format("the upload cannot be used: {}", bad.what_without_backtrace());
  } catch (const std::exception& bad) {
    verdict.reason = fmt::format("the upload cannot be used: {}", bad.what());
  }
  return verdict;
}

}  // namespace hansa::pipeline
