#include "scaffold.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <train/declare.hpp>

#include "base/error.hpp"

namespace hansa::scaffold {

namespace {

const Channel* find_channel(const Exchange& exchange, std::string_view name) {
  for (const auto& channel : exchange.up)
    if (channel.name == name) return &channel;
  return nullptr;
}

// Names of the Shared tensors, in the order of their indices: those of the "adapter" channel.
std::map<Index, std::string> shared_names(const Exchange& exchange) {
  std::map<Index, std::string> names;
  const auto* adapter = find_channel(exchange, kAdapterChannel);
  const auto tensors = adapter ? adapter->layout.tensors : std::vector<TensorSpec>{};
  std::size_t next = 0;
  for (Index i = 0; i < exchange.roles.size(); ++i) {
    if (exchange.roles[i] != Role::Shared) continue;
    if (next == tensors.size()) break;
    names.emplace(i, tensors[next++].name);
  }
  if (names.empty() || next != tensors.size()) throw Error("the roles of this round do not fit its channel 'adapter'");
  return names;
}

// One Shared parameter during a round.
struct Track {
  at::Tensor sum;         // of its raw gradients
  at::Tensor correction;  // c - c_i; undefined: zero
};

at::Tensor or_zeros(const at::Tensor* found, const at::Tensor& like) {
  return found ? found->to(like.device()) : at::zeros_like(like.detach());
}

template <class Map>
const at::Tensor* find(const Map& map, std::string_view name) {
  const auto at = map.find(name);
  return at == map.end() ? nullptr : &at->second;
}

void require_fits(const at::Tensor& control, const at::Tensor& parameter, const std::string& name) {
  if (control.sizes() != parameter.sizes() || control.scalar_type() != at::kFloat)
    throw Error(fmt::format(
        "the control variate of '{}' has another shape than the parameter; it comes from another run", name));
}

}  // namespace

std::vector<Channel> Scaffold::up(const Layout& trainable) const {
  Channel channel{.name = std::string(kControl), .carry = Carry::Mean, .keep = Keep::Latest, .for_trainer = true};
  for (Index i = 0; i < trainable.tensors.size(); ++i) {
    channel.layout.tensors.push_back({trainable.tensors[i].name, DType::f32, trainable.tensors[i].shape});
    channel.layout.groups.push_back({"", {i}});  // gradients of a pair's factors are not themselves a pair
  }
  return {std::move(channel)};
}

void Scaffold::receive(Model&, Adapter&, const Download& download) {
  if (download.channel != kControl)
    throw Error(fmt::format("scaffold has no use for channel '{}'; choose a trainer that does", download.channel));
  common_.clear();
  for (const auto& [name, tensor] : download.tensors) common_[name] = tensor.detach().clone();
}

TrainResult Scaffold::train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) {
  changes_.clear();
  order_.clear();
  const auto* channel = find_channel(context.exchange, kControl);
  if (!channel) return train::run(params_, host_, model, adapter, data, context);  // alone: no others, no drift
  order_ = channel->layout.tensors;
  const auto names = shared_names(context.exchange);
  std::map<Index, Track> tracks;
  for (const auto& [index, name] : names) {
    const auto parameter = adapter.parameter(index);
    const auto *own = find(own_, name), *common = find(common_, name);
    for (const auto* control : {own, common})
      if (control) require_fits(*control, parameter, name);
    tracks[index] = {at::zeros_like(parameter.detach()), or_zeros(common, parameter).sub(or_zeros(own, parameter))};
  }
  const auto result = train::run(params_, host_, model, adapter, data, context, [&](const train::Trained& what) {
    at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < what.indices.size(); ++i) {
      const auto track = tracks.find(what.indices[i]);
      if (track == tracks.end()) continue;  // Personal: nobody else's gradients pull at it
      auto parameter = what.parameters[i];
      auto& gradient = parameter.mutable_grad();
      if (!gradient.defined()) gradient = at::zeros_like(parameter.detach());
      track->second.sum.add_(gradient);
      gradient.add_(track->second.correction);
    }
  });
  at::NoGradGuard no_grad;
  std::map<std::string_view, Index> indices;
  for (const auto& [index, name] : names) indices[name] = index;
  for (const auto& spec : order_) {
    auto change = at::zeros(spec.shape, at::TensorOptions().dtype(at::kFloat));
    const auto index = indices.find(spec.name);
    if (index != indices.end() && result.steps > 0) {  // others are at rest or stay here: nothing to say
      change = tracks.at(index->second).sum.div(static_cast<double>(result.steps)).to(at::kCPU);
      if (const auto* own = find(own_, spec.name)) change.sub_(*own);
    }
    changes_.push_back(std::move(change));
  }
  return result;
}

std::vector<at::Tensor> Scaffold::outgoing(std::string_view channel) {
  return channel == kControl ? changes_ : std::vector<at::Tensor>{};
}

void Scaffold::sent(std::string_view channel, std::span<const at::Tensor> decoded) {
  if (channel != kControl) return;
  if (decoded.size() != order_.size())
    throw Error(fmt::format("{} control variates were sent, and this round has {}", decoded.size(), order_.size()));
  at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    const auto& name = order_[i].name;
    const auto* own = find(own_, name);
    own_[name] = own ? own->add(decoded[i]) : decoded[i].detach().clone();
  }
}

void Scaffold::save(StateWriter& to) const {
  std::string names;
  for (const auto& [name, tensor] : own_) {
    names += name + '\n';
    to.put("control." + name, tensor);
  }
  to.put("names", std::string_view(names));
}

void Scaffold::load(const StateReader& from, std::uint32_t version) {
  if (version != 1) throw Error(fmt::format("scaffold reads state of version 1; this is of version {}", version));
  own_.clear();
  if (!from.has("names")) return;
  const auto names = from.bytes("names");
  for (std::size_t at = 0; at < names.size();) {
    const auto end = names.find('\n', at);
    const auto name = names.substr(at, end - at);
    own_[name] = from.tensor("control." + name).clone();
    at = end == std::string::npos ? names.size() : end + 1;
  }
}

}  // namespace hansa::scaffold

HANSA_PLUGIN(org_hansa_scaffold, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component = plugin.add<scaffold::Scaffold, scaffold::Params>(
      "scaffold", "Gradient descent with control variates against client drift (SCAFFOLD).");
  train::declare(component).doc(
      "arXiv 1910.06378. Every step follows the gradient less the node's own control variate plus the federation's; "
      "the "
      "correction stands before the clip. The node's new control variate is the mean of its raw local gradients of the "
      "round, which is right under any optimiser; the formula from the moved weights (the paper's option II) holds "
      "under "
      "plain SGD only. Each node keeps one fp32 tensor per shared tensor, and twice the bytes travel in each "
      "direction.");
}
