#include "fold/fold.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <hansa/layouts.hpp>

#include "fold/group.hpp"
#include "fold/optimizer_state.hpp"
#include "tensor/bridge.hpp"
#include "tensor/reduce.hpp"

namespace hansa::fold {
namespace {

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

// May be written to: no view of a spool, nothing that the rule keeps or put twice.
bool is_ours(const at::Tensor& tensor) {
  return tensor.storage().resizable() && tensor.use_count() == 1 && tensor.storage().use_count() == 1;
}

// The next version of one view while it is written.
class NextVersion {
 public:
  NextVersion(const FoldPlan& plan, const OpenView& view, Durability durability)
      : view_(view),
        round_(plan.round.round),
        file_(view.plan.next,
              version_contents(view.plan.exchange.down, plan.round.base + 1, made_by(plan.round),
                               moved_in(view.plan.exchange)),
              durability) {
    for (const auto& channel : file_.plan().contents().channels) {
      for (const auto& entry : channel.entries) leaves_[{channel.name, entry.name}] = &entry.code;
    }
  }

  // Block by block, so that the bytes are still in the cache when they are written and hashed.
  void write(std::string_view channel, const TensorSpec& spec, const at::Tensor& value, const std::string& made_it,
             std::string_view doing) {
    const CallPlace where{.doing = doing, .round = round_, .tensor = spec.name};
    if (!value.defined() || value.scalar_type() != at::kFloat || !value.is_contiguous() ||
        !value.sizes().equals(spec.shape)) {
      throw PluginFailure(made_it, where, fmt::format("it put another tensor in the place of {}", spec.name));
    }
    const auto& leaf = leaf_of(channel, spec.name);
    RunningSquaredNorm norm;
    const auto values = std::span(value.const_data_ptr<float>(), static_cast<std::size_t>(value.numel()));
    for (std::size_t first = 0; first < values.size(); first += kBlock) {
      const auto block = values.subspan(first, std::min(kBlock, values.size() - first));
      norm.add(block);
      file_.put(leaf, first * sizeof(float), std::as_bytes(block));
    }
    if (!norm.value().all_finite())
      throw PluginFailure(made_it, where, fmt::format("it made {} not finite; nothing was released", spec.name));
  }

  // Everything that did not move, and what the rule appended to its own Latest channels.
  void complete(const LogFile& log) {
    for (const auto& [name, leaf] : leaves_) {
      if (written_.contains(leaf)) continue;
      if (log.moved(name.first, name.second)) {
        file_.put(*leaf, 0, log.latest(name.first, name.second));
      } else {
        file_.put(*leaf, 0, view_.base.view().bytes(view_.base.code(name.first, name.second)));
      }
    }
  }
  PacketFile finish() { return file_.finish(); }

 private:
  const Code& leaf_of(std::string_view channel, std::string_view tensor) {
    const auto found = leaves_.find({channel, tensor});
    if (found == leaves_.end())
      throw Error(fmt::format("'{}' of channel '{}' travels up, and no version holds it", tensor, channel));
    written_.insert(found->second);
    return *found->second;
  }
  static std::string moved_in(const Exchange& exchange) {
    std::string moved;
    bool all = true;
    for (const auto& down : exchange.down) {
      if (down.keep != Keep::Latest) continue;
      const auto* up = find_channel(exchange.up, down.name);
      if (down.name != kAdapterChannel) {  // averaged, or the rule's own
        for (const auto& tensor : down.layout.tensors) moved += fmt::format("{}/{}\n", down.name, tensor.name);
        continue;
      }
      all = up && up->layout.tensors.size() == down.layout.tensors.size();
      if (!up) continue;
      for (const auto& tensor : up->layout.tensors) moved += fmt::format("{}/{}\n", down.name, tensor.name);
    }
    return all ? "*" : moved;
  }

  const OpenView& view_;
  Round round_;
  PacketFileWriter file_;
  std::map<std::pair<std::string_view, std::string_view>, const Code*> leaves_;
  std::set<const Code*> written_;
};

class Folder {
 public:
  Folder(const FoldPlan& plan, std::span<const FoldClient> clients, FoldStages stages, const FoldFiles& files)
      : plan_(plan), stages_(stages), log_(files.next_log, plan.views.front().exchange.down, files.durability) {
    for (const auto& view : plan.views) {
      names_.push_back(view.name);
      views_.emplace_back(view, stages.downlink, plan.down_seed, plan.round.round);
    }
    for (const auto& client : clients) {
      if (!clients_.empty() && clients_.back().client.who.node >= client.who.node)
        throw Error("fold: clients are not in node order");
      clients_.emplace_back(client, view_of(client.who.view), stages.codecs, plan.common_seed,
                            CallPlace{.round = plan.round.round, .node = named(client.who.node)});
    }
    for (const auto& view : views_) next_.emplace_back(plan, view, files.durability);
    const auto* standing = find_channel(plan.views.front().exchange.down, kAdapterChannel);
    if (standing) state_.emplace(standing->layout, *stages.optimizer, files);
    const auto& tensors = plan.views.front().trainable.tensors;
    for (Index i = 0; i < tensors.size(); ++i) trainable_index_[tensors[i].name] = i;
  }

  std::span<const Group> groups() const {
    const auto* shared = views_.front().shared;
    return shared ? std::span<const Group>(shared->layout.groups) : std::span<const Group>{};
  }

  void collect() {
    for (const auto& client : clients_) {
      for (const auto& channel : client.view.plan.exchange.up) {
        if (channel.carry != Carry::Collect) continue;
        std::vector<at::Tensor> tensors;
        for (Index i = 0; i < channel.layout.tensors.size(); ++i) tensors.push_back(client.tensor(channel, i));
        const CallPlace where{.doing = "collect",
                              .round = plan_.round.round,
                              .node = named(client.client.who.node),
                              .tensor = channel.name};
        guard(stages_.aggregator, where,
              [&](Aggregator& rule) { rule.collect(client.client.who, channel.name, tensors); });
      }
    }
  }

  void survey(const Group& group) {
    const GroupUpdates updates(group, views_, clients_, names_);
    guard(stages_.aggregator, place(group, "survey"), [&](Aggregator& rule) { rule.survey(updates); });
  }

  void reduce(const Group& group) {
    const GroupUpdates updates(group, views_, clients_, names_);
    GroupResults results(&group, views_, log_);
    guard(stages_.aggregator, place(group, "reduce"), [&](Aggregator& rule) { rule.reduce(updates, results); });
    for (std::size_t member = 0; member < group.members.size(); ++member) {
      const auto index = group.members[member];
      const auto& spec = views_.front().shared->layout.tensors[index];
      auto change = taken(spec, [&] { return results.take(member); });
      const std::size_t first_value = change.defined() ? 1 : 0;
      if (change.defined()) apply(index, std::move(change));
      for (auto v = first_value; v < views_.size(); ++v)
        put_value(v, index, taken(spec, [&] { return results.take_for(views_[v], member); }));
    }
  }

  // Channels whose plain sum over the population is added to what stands.
  void means() {
    for (const auto& channel : plan_.views.front().exchange.up) {
      if (channel.carry != Carry::Mean) continue;
      for (const auto& view : plan_.views) {
        const auto* same = find_channel(view.exchange.up, channel.name);
        if (!same || same->layout.tensors != channel.layout.tensors)
          throw Error(fmt::format("channel '{}' cannot be averaged: nodes of view '{}' have other shapes", channel.name,
                                  view.name));
      }
      for (Index i = 0; i < channel.layout.tensors.size(); ++i) add_mean(channel, i);
    }
  }

  Metrics finish_rule() {
    const CallPlace end{.doing = "finish", .round = plan_.round.round};
    GroupResults results(nullptr, views_, log_);
    return guard(stages_.aggregator, end, [&](Aggregator& rule) { return rule.finish(results); });
  }

  FoldOutcome finish() {
    FoldOutcome outcome;
    for (auto& version : next_) version.complete(log_);
    log_.write(plan_.round.base + 1);
    // The state first, the version of "" last: a version is announced by its own rename, and must find all else beside it.
    if (state_) outcome.state = state_->finish();
    for (std::size_t v = 1; v < next_.size(); ++v) next_[v].finish();
    outcome.version = next_.front().finish();
    outcome.metrics.emplace_back("update_norm", update_norm_.norm());
    return outcome;
  }

 private:
  std::optional<NodeId> named(NodeId node) const { return plan_.names_nodes ? std::optional(node) : std::nullopt; }
  // What the rule put, or its failure to put it.
  template <class Take>
  at::Tensor taken(const TensorSpec& spec, const Take& take) const {
    const CallPlace where{.doing = "reduce", .round = plan_.round.round, .tensor = spec.name};
    return guard(stages_.aggregator, where, [&](Aggregator&) { return take(); });
  }
  const std::string& rule() const { return stages_.aggregator.get_deleter().label(); }
  const OpenView& view_of(const std::string& name) const {
    for (const auto& view : views_) {
      if (view.plan.name == name) return view;
    }
    throw Error(fmt::format("fold: a client is of view '{}', which the plan does not have", name));
  }
  CallPlace place(const Group& group, std::string_view doing) const {
    return {.doing = doing,
            .round = plan_.round.round,
            .tensor = views_.front().shared->layout.tensors[group.members[0]].name};
  }

  // Noise on a sum, then the division. Returns the norm of what is left.
  SquaredNorm protect(std::string_view channel, Index index, const TensorSpec& spec, at::Tensor& sum, float denominator,
                      const std::string& made_it) {
    if ((stages_.privacy || denominator != 1) && !is_ours(sum)) sum = sum.clone();
    if (stages_.privacy) {
      const CallPlace where{.doing = "add noise", .round = plan_.round.round, .tensor = spec.name};
      guard(stages_.privacy, where, [&](Privacy& mechanism) { mechanism.central(channel, index, sum, stages_.noise); });
    }
    const auto norm = denominator != 1 ? divide(sum, denominator) : squared_norm(sum);
    if (!norm.all_finite()) {
      const auto who =
          stages_.privacy ? fmt::format("{} with {}", made_it, stages_.privacy.get_deleter().label()) : made_it;
      throw PluginFailure(who, {.doing = "reduce", .round = plan_.round.round, .tensor = spec.name},
                          fmt::format("the aggregate of {} is not finite; nothing was released", spec.name));
    }
    return norm;
  }

  // One reduced tensor of the view "": noise on the sum, divide, step, write.
  void apply(Index index, at::Tensor change) {
    const auto& spec = views_.front().shared->layout.tensors[index];
    update_norm_ += protect(kAdapterChannel, index, spec, change,
                            plan_.additive ? static_cast<float>(plan_.denominator) : 1.0f, rule());
    auto parameter = views_.front().base.tensor(kAdapterChannel, spec.name).clone();
    auto state = state_->load(spec.name);
    const CallPlace where{.doing = "step", .round = plan_.round.round, .tensor = spec.name};
    guard(stages_.optimizer, where, [&](ServerOptimizer& optimizer) {
      optimizer.step(kAdapterChannel, trainable_index_.at(spec.name), parameter, change, state);
    });
    next_.front().write(kAdapterChannel, spec, parameter, stages_.optimizer.get_deleter().label(), "step");
    state_->store(spec.name, state);
  }

  void put_value(std::size_t view, Index index, const at::Tensor& value) {
    next_[view].write(kAdapterChannel, views_[view].shared->layout.tensors[index], value, rule(), "reduce");
  }

  void add_mean(const Channel& channel, Index index) {
    const auto& spec = channel.layout.tensors[index];
    auto sum = at::zeros(spec.shape, at::kFloat);
    for (const auto& client : clients_) sum.add_(client.tensor(channel, index));
    protect(channel.name, index, spec, sum, static_cast<float>(plan_.round.population),
            fmt::format("the mean of channel '{}'", channel.name));
    const auto value = views_.front().base.tensor(channel.name, spec.name).add(sum);
    for (auto& version : next_)
      version.write(channel.name, spec, value, fmt::format("the mean of channel '{}'", channel.name), "add");
  }

  const FoldPlan& plan_;
  FoldStages stages_;
  std::vector<std::string> names_;
  std::deque<OpenView> views_;  // deques: what points into them stays valid
  std::deque<OpenClient> clients_;
  std::deque<NextVersion> next_;
  LogFile log_;
  std::optional<OptimizerState> state_;
  std::map<std::string, Index, std::less<>> trainable_index_;
  SquaredNorm update_norm_;
};

}  // namespace

PacketContents version_contents(const std::vector<Channel>& down, Epoch epoch, std::string made_by, std::string moved) {
  PacketContents contents;
  contents.meta["epoch"] = std::to_string(epoch);
  contents.meta["made_by"] = std::move(made_by);
  contents.meta["moved"] = std::move(moved);
  for (const auto& channel : down) {
    if (channel.keep == Keep::Latest) contents.channels.push_back(raw_channel(channel.name, channel.layout));
  }
  return contents;
}
std::string made_by(const RoundPlan& plan) { return fmt::format("round {} attempt {}", plan.round, plan.attempt); }

FoldOutcome fold(const FoldPlan& plan, std::span<const FoldClient> clients, FoldStages stages, const FoldFiles& files,
                 const std::function<void(std::size_t, std::size_t)>& progress) {
  const at::NoGradGuard no_grad;
  const CallPlace where{.doing = "begin", .round = plan.round.round};
  Folder folder(plan, clients, stages, files);
  guard(stages.aggregator, where, [&](Aggregator& rule) { rule.begin(plan.round); });
  guard(stages.optimizer, where, [&](ServerOptimizer& optimizer) { optimizer.begin_step(plan.round.round); });
  if (stages.privacy) {
    guard(stages.privacy, where, [&](Privacy& mechanism) { mechanism.begin_release(plan.round, plan.sensitivity); });
  }

  folder.collect();
  const auto groups = folder.groups();
  if (stages.aggregator->surveys()) {
    for (const auto& group : groups) folder.survey(group);
  }
  for (std::size_t done = 0; done < groups.size(); ++done) {
    folder.reduce(groups[done]);
    if (progress) progress(done + 1, groups.size());
  }
  folder.means();
  const CallPlace end{.doing = "finish", .round = plan.round.round};
  if (stages.privacy) guard(stages.privacy, end, [](Privacy& mechanism) { mechanism.end_release(); });
  auto metrics = folder.finish_rule();
  if (files.before_release) files.before_release();
  auto outcome = folder.finish();
  for (auto& metric : metrics) outcome.metrics.push_back(std::move(metric));
  return outcome;
}

}  // namespace hansa::fold
