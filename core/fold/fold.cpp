#include "fold/fold.hpp"

#include <algorithm>
#include <memory>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "tensor/bridge.hpp"
#include "tensor/reduce.hpp"

namespace hansa::fold {
namespace {

constexpr std::string_view kStateChannel = "optimizer";

struct OpenClient {
  const FoldClient* client;
  MappedFile file;
  std::unique_ptr<PacketView> view;
  const PacketChannel* channel;
};

// A packet of the layout's tensors, mapped: version e, or the optimiser's state.
class MappedPacket {
 public:
  MappedPacket(const std::filesystem::path& path, std::string_view channel) : file_(path), view_(file_.bytes()) {
    channel_ = view_.find(channel);
    if (!channel_) throw Error(fmt::format("{} holds no channel '{}'", path.string(), channel));
  }
  const PacketChannel& channel() const { return *channel_; }
  at::Tensor tensor(std::size_t index) const { return view_as_tensor(view_, channel_->entries.at(index).code); }

 private:
  MappedFile file_;
  PacketView view_;
  const PacketChannel* channel_;
};

class GroupUpdates final : public Updates {
 public:
  GroupUpdates(const FoldPlan& plan, const Group& group, std::span<const OpenClient> clients, const CodecChain& codecs,
               const MappedPacket& base)
      : plan_(plan), group_(group), clients_(clients), codecs_(codecs), base_(base) {}

  const Group& group() const override { return group_; }
  const TensorSpec& tensor(std::size_t member) const override {
    return plan_.trainable.tensors[group_.members.at(member)];
  }
  std::size_t clients() const override { return clients_.size(); }
  const Contribution& who(std::size_t client) const override { return clients_[client].client->who; }

  at::Tensor delta(std::size_t client, std::size_t member) const override {
    const auto& from = clients_[client];
    const auto index = group_.members.at(member);
    auto decoded = codecs_.decode(*from.view, from.channel->entries[index].code, tensor(member),
                                  tensor_seed(plan_.common_seed, kAdapterChannel, index));
    const double factor = from.client->factor;
    return factor == 1 ? decoded : decoded.mul(factor);
  }
  at::Tensor value(std::size_t client, std::size_t member) const override {
    return base_.tensor(group_.members.at(member)).add(delta(client, member));
  }
  at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const override {
    const auto& from = clients_[client];
    const auto& code = from.channel->entries[group_.members.at(member)].code;
    if (code.coded) return delta(client, member).flatten().narrow(0, first, count);
    const auto bytes = from.view->elements(code, first, count);
    auto copy = at::empty({count}, at::kFloat);  // a range need not be aligned; sums must not depend on that
    std::memcpy(copy.data_ptr<float>(), bytes.data(), bytes.size());
    return from.client->factor == 1 ? copy : copy.mul_(from.client->factor);
  }

 private:
  const FoldPlan& plan_;
  const Group& group_;
  std::span<const OpenClient> clients_;
  const CodecChain& codecs_;
  const MappedPacket& base_;
};

class GroupResults final : public Results {
 public:
  GroupResults(const FoldPlan& plan, const Group& group) : plan_(plan), group_(group), put_(group.members.size()) {}

  void put(std::size_t member, const at::Tensor& delta) override {
    const auto& spec = spec_of_member(member);
    if (!delta.defined() || delta.scalar_type() != at::kFloat || !delta.sizes().equals(spec.shape)) {
      throw Error(fmt::format("the aggregator put a tensor for {} that is not fp32 of its shape", spec.name));
    }
    put_.at(member) = delta.contiguous();
  }
  void put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) override {
    const auto& spec = spec_of_member(member);
    if (first < 0 || first + part.numel() > spec.elements() || part.scalar_type() != at::kFloat) {
      throw Error(fmt::format("the aggregator put {} elements at {} into {}, which has {}", part.numel(), first,
                              spec.name, spec.elements()));
    }
    auto& whole = put_.at(member);
    if (!whole.defined()) whole = at::zeros(spec.shape, at::kFloat);
    whole.view({-1}).narrow(0, first, part.numel()).copy_(part.flatten());
  }
  at::Tensor take(std::size_t member) {
    if (!put_.at(member).defined())
      throw Error(fmt::format("the aggregator put nothing for {}", spec_of_member(member).name));
    return std::move(put_[member]);
  }

 private:
  const TensorSpec& spec_of_member(std::size_t member) const {
    return plan_.trainable.tensors[group_.members.at(member)];
  }
  const FoldPlan& plan_;
  const Group& group_;
  std::vector<at::Tensor> put_;
};

// Where each parameter's optimiser tensors stand in the state packet: a range of entries per parameter.
struct StateLayout {
  PacketContents contents;
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
};
StateLayout state_layout(const Layout& trainable, const ServerOptimizer& optimizer) {
  StateLayout layout;
  PacketChannel channel{std::string(kStateChannel), {}};
  for (const auto& tensor : trainable.tensors) {
    const auto first = channel.entries.size();
    for (const auto& spec : optimizer.state(tensor)) {
      channel.entries.push_back({fmt::format("{}/{}", tensor.name, spec.name), raw_code(DType::f32, spec.shape)});
    }
    layout.ranges.emplace_back(first, channel.entries.size());
  }
  layout.contents.channels.push_back(std::move(channel));
  return layout;
}

std::vector<OpenClient> open_clients(const FoldPlan& plan, std::span<const FoldClient> clients) {
  std::vector<OpenClient> open;
  open.reserve(clients.size());
  for (const auto& client : clients) {
    if (!open.empty() && open.back().client->who.node >= client.who.node)
      throw Error("fold: clients are not in node order");
    OpenClient one{&client, MappedFile(client.spool), nullptr, nullptr};
    one.view = std::make_unique<PacketView>(one.file.bytes());
    one.channel = one.view->find(kAdapterChannel);
    if (!one.channel) throw Error(fmt::format("{} holds no channel '{}'", client.spool.string(), kAdapterChannel));
    if (auto why = difference(*one.channel, plan.trainable))
      throw Error(fmt::format("{}: {}", client.spool.string(), *why));
    open.push_back(std::move(one));
  }
  return open;
}

constexpr std::size_t kBlock = 1 << 16;  // elements worked on at a time; a multiple of the norm's lanes

// In place; returns the result's norm.
SquaredNorm divide(at::Tensor& tensor, float by) {
  RunningSquaredNorm norm;
  const auto values = std::span(tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel()));
  for (std::size_t first = 0; first < values.size(); first += kBlock) {
    const auto block = values.subspan(first, std::min(kBlock, values.size() - first));
    for (auto& value : block) value /= by;
    norm.add(block);
  }
  return norm.value();
}

class Folder {
 public:
  Folder(const FoldPlan& plan, std::span<const OpenClient> clients, FoldStages stages, const FoldFiles& files)
      : plan_(plan),
        clients_(clients),
        stages_(stages),
        base_(files.base, kAdapterChannel),
        layout_(state_layout(plan.trainable, *stages.optimizer)),
        version_(files.next, version_contents(plan.trainable, plan.round.base + 1, made_by(plan.round)),
                 files.durability) {
    if (layout_.contents.channels[0].entries.empty()) return;
    state_ = std::make_unique<PacketFileWriter>(files.next_state, layout_.contents, files.durability);
    if (std::filesystem::exists(files.base_state))
      old_state_ = std::make_unique<MappedPacket>(files.base_state, kStateChannel);
  }

  void survey(const Group& group) {
    const GroupUpdates updates(plan_, group, clients_, stages_.codecs, base_);
    guard(stages_.aggregator, place(group, "survey"), [&](Aggregator& rule) { rule.survey(updates); });
  }

  void reduce(const Group& group) {
    const GroupUpdates updates(plan_, group, clients_, stages_.codecs, base_);
    GroupResults results(plan_, group);
    guard(stages_.aggregator, place(group, "reduce"), [&](Aggregator& rule) { rule.reduce(updates, results); });
    for (std::size_t member = 0; member < group.members.size(); ++member) {
      apply(group.members[member], results.take(member));
    }
  }

  FoldOutcome finish() {
    FoldOutcome outcome;
    if (state_)
      outcome.state =
          state_->finish();  // first: a version is announced by its own rename, and must find its state beside it
    outcome.version = version_.finish();
    outcome.metrics.emplace_back("update_norm", update_norm_.norm());
    return outcome;
  }

 private:
  CallPlace place(const Group& group, std::string_view doing) const {
    return {.doing = doing, .round = plan_.round.round, .tensor = plan_.trainable.tensors[group.members[0]].name};
  }

  // One reduced tensor: noise on the sum, divide, step, write.
  void apply(Index index, at::Tensor change) {
    const auto& spec = plan_.trainable.tensors[index];
    const CallPlace where{.doing = "step", .round = plan_.round.round, .tensor = spec.name};
    const bool divided = plan_.additive && plan_.denominator != 1;
    if ((stages_.privacy || divided) && !is_ours(change)) change = change.clone();
    if (stages_.privacy) {
      guard(stages_.privacy, where,
            [&](Privacy& mechanism) { mechanism.central(kAdapterChannel, index, change, stages_.noise); });
    }
    const auto norm = divided ? divide(change, static_cast<float>(plan_.denominator)) : squared_norm(change);
    if (!norm.all_finite())
      throw Error(fmt::format("the aggregate of {} is not finite; nothing was released", spec.name));
    update_norm_ += norm;

    auto parameter = base_.tensor(index).clone();
    auto state = load_state(index);
    guard(stages_.optimizer, where,
          [&](ServerOptimizer& optimizer) { optimizer.step(kAdapterChannel, index, parameter, change, state); });
    write(index, parameter);
    store_state(index, state);
  }

  // Block by block, so that the bytes are still in the cache when they are written and hashed.
  void write(Index index, const at::Tensor& parameter) {
    const auto& spec = plan_.trainable.tensors[index];
    if (!parameter.defined() || parameter.scalar_type() != at::kFloat || !parameter.is_contiguous() ||
        !parameter.sizes().equals(spec.shape)) {
      throw Error(fmt::format("the server optimiser put another tensor in the place of {}", spec.name));
    }
    RunningSquaredNorm norm;
    const auto values = std::span(parameter.const_data_ptr<float>(), static_cast<std::size_t>(parameter.numel()));
    for (std::size_t first = 0; first < values.size(); first += kBlock) {
      const auto block = values.subspan(first, std::min(kBlock, values.size() - first));
      norm.add(block);
      version_.put(version_.plan().contents().channels[0].entries[index].code, first * sizeof(float),
                   std::as_bytes(block));
    }
    if (!norm.value().all_finite()) {
      throw Error(fmt::format("the server optimiser made {} not finite; nothing was released", spec.name));
    }
  }

  // May be written to: no view of a spool, nothing that the rule keeps or put twice.
  static bool is_ours(const at::Tensor& tensor) {
    return tensor.storage().resizable() && tensor.use_count() == 1 && tensor.storage().use_count() == 1;
  }

  std::vector<at::Tensor> load_state(Index index) {
    std::vector<at::Tensor> state;
    for (auto i = layout_.ranges[index].first; i < layout_.ranges[index].second; ++i) {
      const auto& code = layout_.contents.channels[0].entries[i].code;
      state.push_back(old_state_ ? old_state_->tensor(i).clone() : at::zeros(code.shape, at::kFloat));
    }
    return state;
  }
  void store_state(Index index, const std::vector<at::Tensor>& state) {
    for (std::size_t i = 0; i < state.size(); ++i) {
      const auto& entry = state_->plan().contents().channels[0].entries[layout_.ranges[index].first + i];
      state_->put(entry.code, 0, bytes_of(state[i].contiguous()));
    }
  }

  const FoldPlan& plan_;
  std::span<const OpenClient> clients_;
  FoldStages stages_;
  MappedPacket base_;
  StateLayout layout_;
  PacketFileWriter version_;
  std::unique_ptr<PacketFileWriter> state_;
  std::unique_ptr<MappedPacket> old_state_;
  SquaredNorm update_norm_;
};

}  // namespace

PacketContents version_contents(const Layout& trainable, Epoch epoch, std::string made_by) {
  PacketContents contents;
  contents.meta["epoch"] = std::to_string(epoch);
  contents.meta["made_by"] = std::move(made_by);
  contents.channels.push_back(raw_channel(std::string(kAdapterChannel), trainable));
  return contents;
}
std::string made_by(const RoundPlan& plan) { return fmt::format("round {} attempt {}", plan.round, plan.attempt); }

FoldOutcome fold(const FoldPlan& plan, std::span<const FoldClient> clients, FoldStages stages, const FoldFiles& files,
                 const std::function<void(std::size_t, std::size_t)>& progress) {
  const at::NoGradGuard no_grad;
  const auto open = open_clients(plan, clients);
  const CallPlace where{.doing = "begin", .round = plan.round.round};
  guard(stages.aggregator, where, [&](Aggregator& rule) { rule.begin(plan.round); });
  guard(stages.optimizer, where, [&](ServerOptimizer& optimizer) { optimizer.begin_step(plan.round.round); });
  if (stages.privacy) {
    guard(stages.privacy, where, [&](Privacy& mechanism) { mechanism.begin_release(plan.round, plan.sensitivity); });
  }

  Folder folder(plan, open, stages, files);
  if (stages.aggregator->surveys()) {
    for (const auto& group : plan.trainable.groups) folder.survey(group);
  }
  const auto total = plan.trainable.groups.size();
  for (std::size_t done = 0; done < total; ++done) {
    folder.reduce(plan.trainable.groups[done]);
    if (progress) progress(done + 1, total);
  }
  const CallPlace end{.doing = "finish", .round = plan.round.round};
  if (stages.privacy) guard(stages.privacy, end, [](Privacy& mechanism) { mechanism.end_release(); });
  auto metrics = guard(stages.aggregator, end, [](Aggregator& rule) { return rule.finish(); });
  if (files.before_release) files.before_release();
  auto outcome = folder.finish();
  for (auto& metric : metrics) outcome.metrics.push_back(std::move(metric));
  return outcome;
}

}  // namespace hansa::fold
