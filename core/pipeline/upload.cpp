#include "pipeline/upload.hpp"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "base/file.hpp"
#include "tensor/bridge.hpp"
#include "tensor/reduce.hpp"

namespace hansa::pipeline {
namespace {

const Channel& only_channel(const WorkOrder& order) {
  if (order.exchange.up.size() != 1) throw Error("this version carries exactly one channel upwards");
  return order.exchange.up[0];
}

PacketContents contents_of(const WorkOrder& order, const std::vector<EncodedTensor>& tensors) {
  const auto& channel = only_channel(order);
  PacketContents contents;
  contents.channels.push_back({channel.name, {}});
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    contents.channels[0].entries.push_back({channel.layout.tensors[i].name, tensors[i].code});
  }
  return contents;
}

double clip_factor(double norm, double bound) { return norm > bound ? bound / norm : 1.0; }

}  // namespace

EncodedUpdate::EncodedUpdate(const WorkOrder& order, std::vector<EncodedTensor> tensors)
    : plan_(contents_of(order, tensors)), tensors_(std::move(tensors)) {}

void EncodedUpdate::stream(const ByteSink& sink) const {
  PacketWriter writer(plan_, sink);
  for (const auto& tensor : tensors_) {
    for (const auto& leaf : tensor.leaves) writer.write(bytes_of(leaf));
  }
  writer.finish();
}

EncodedUpdate encode_update(const WorkOrder& order, std::vector<at::Tensor> deltas, NodeStages stages, Seeds seeds) {
  const at::NoGradGuard no_grad;
  const auto& channel = only_channel(order);
  if (deltas.size() != channel.layout.tensors.size()) throw Error("the update does not have the layout of the round");
  SquaredNorm norm;
  for (std::size_t i = 0; i < deltas.size(); ++i) {
    const auto one = squared_norm(deltas[i]);
    if (!one.all_finite()) {
      throw Error(fmt::format(
          "training made {} not finite (NaN or infinity); nothing was sent. Lower the learning rate, or clip "
          "gradients (max_grad_norm)",
          channel.layout.tensors[i].name));
    }
    norm += one;
  }
  const double factor = clip_factor(norm.norm(), order.clip_bound);
  std::vector<EncodedTensor> encoded;
  encoded.reserve(deltas.size());
  for (Index i = 0; i < deltas.size(); ++i) {
    auto delta = std::move(deltas[i]);
    const auto& name = channel.layout.tensors[i].name;
    if (factor != 1) delta.mul_(factor);
    if (stages.privacy) {
      guard(stages.privacy, {.doing = "local noise", .round = order.plan.round, .tensor = name},
            [&](Privacy& mechanism) { mechanism.local(channel.name, i, delta, stages.noise); });
    }
    const Seeds own{tensor_seed(seeds.common, channel.name, i), tensor_seed(seeds.own, channel.name, i)};
    encoded.push_back(stages.codecs.encode(delta, own));
  }
  EncodedUpdate update(order, std::move(encoded));
  update.norm_before_clip = norm.norm();
  update.clip_factor = factor;
  return update;
}

Screened screen_upload(const std::filesystem::path& packet, const WorkOrder& order, const CodecChain& codecs,
                       std::uint64_t common_seed) {
  const at::NoGradGuard no_grad;
  const auto& channel = only_channel(order);
  Screened verdict;
  const MappedFile file(packet);
  try {
    const PacketView view(file.bytes());
    if (view.contents().channels.size() != 1) throw Error("it must hold exactly one channel");
    const auto* held = view.find(channel.name);
    if (!held) throw Error(fmt::format("it holds no channel '{}'", channel.name));
    if (auto why = difference(*held, channel.layout)) throw Error(*why);
    SquaredNorm norm;
    for (Index i = 0; i < held->entries.size(); ++i) {
      const auto delta = codecs.decode(view, held->entries[i].code, channel.layout.tensors[i],
                                       tensor_seed(common_seed, channel.name, i));
      const auto one = squared_norm(delta);
      if (!one.all_finite()) throw Error(fmt::format("{} is not finite (NaN or infinity)", held->entries[i].name));
      norm += one;
    }
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
