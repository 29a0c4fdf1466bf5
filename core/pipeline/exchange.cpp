#include "pipeline/exchange.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <hansa/layouts.hpp>

#include "pipeline/planned_sizes.hpp"

namespace hansa::pipeline {
namespace {

[[noreturn]] void wrong(const std::string& who, const std::string& what) {
  throw Error(fmt::format("{} declares an exchange that makes no sense: {}", who, what));
}

void check_up(const std::string& who, const Channel& channel) {
  if (channel.carry == Carry::Sum)
    wrong(who, fmt::format("only the adapter's own channel goes through the aggregator's rule, and '{}' has carry Sum",
                           channel.name));
  if (channel.carry != Carry::Mean) return;
  for (const auto& tensor : channel.layout.tensors) {
    if (tensor.dtype != DType::f32 || open_length(tensor))
      wrong(who,
            fmt::format("channel '{}' is averaged, so '{}' must be fp32 of a fixed shape", channel.name, tensor.name));
  }
}

void check_down(const std::string& who, const Channel& channel) {
  if (channel.keep == Keep::Log) return;
  for (const auto& tensor : channel.layout.tensors) {
    if (open_length(tensor))
      wrong(who,
            fmt::format("channel '{}' is kept as it is, so '{}' must have a fixed shape", channel.name, tensor.name));
  }
}

void append(const std::string& who, std::vector<Channel>& to, std::vector<Channel> channels,
            void (*check)(const std::string&, const Channel&)) {
  for (auto& channel : channels) {
    if (find_channel(to, channel.name)) wrong(who, fmt::format("there are two channels '{}'", channel.name));
    std::set<std::string_view> names;
    for (const auto& tensor : channel.layout.tensors) {
      if (!names.insert(tensor.name).second)
        wrong(who, fmt::format("channel '{}' has two tensors '{}'", channel.name, tensor.name));
    }
    check(who, channel);
    to.push_back(std::move(channel));
  }
}

// What is averaged upwards must stand somewhere: downwards, under the same name and in the same layout.
void check_means(const Exchange& exchange) {
  for (const auto& up : exchange.up) {
    if (up.carry != Carry::Mean) continue;
    const auto* down = find_channel(exchange.down, up.name);
    if (!down || down->keep != Keep::Latest || down->layout.tensors != up.layout.tensors)
      throw Error(fmt::format(
          "channel '{}' is averaged, so it must also be sent down, kept as Latest, in the same layout", up.name));
  }
}

}  // namespace

Exchange exchange_for(const Stages& stages, const Layout& trainable, const RoundPlan& plan, const NodeFacts& node) {
  const auto& rule = stages.aggregator.get_deleter().label();
  const auto& trainer = stages.trainer.get_deleter().label();
  auto own = guard(stages.aggregator, {.doing = "exchange", .round = plan.round},
                   [&](Aggregator& a) { return a.exchange(trainable, plan, node); });
  if (own.roles.size() != trainable.tensors.size())
    wrong(rule, fmt::format("it gives {} roles for {} tensors", own.roles.size(), trainable.tensors.size()));

  Exchange all{own.view, own.roles, {}, {}};
  auto shared = part_of(trainable, own.roles, {Role::Shared});
  if (!shared.tensors.empty()) all.up.push_back({std::string(kAdapterChannel), std::move(shared)});
  auto standing = part_of(trainable, own.roles, {Role::Shared, Role::Frozen});
  if (!standing.tensors.empty()) all.down.push_back({std::string(kAdapterChannel), standing});
  append(rule, all.up, std::move(own.up), check_up);
  append(rule, all.down, std::move(own.down), check_down);
  guard(stages.trainer, {.doing = "name its channels", .round = plan.round}, [&](Trainer& t) {
    append(trainer, all.up, t.up(standing), check_up);
    append(trainer, all.down, t.down(standing), check_down);
  });
  check_means(all);
  if (all.up.empty()) wrong(rule, "nothing is sent upwards");
  return all;
}

std::vector<View> views_of(const Stages& stages, const LayoutsByRank& layouts) {
  std::vector<View> views;
  RoundPlan plan;
  plan.round = 1;
  for (const auto& [rank, layout] : layouts) {
    NodeFacts node;
    node.rank = rank;
    auto name = exchange_for(stages, layout, plan, node).view;
    if (rank == 0 && !name.empty())
      wrong(stages.aggregator.get_deleter().label(), "a node without a rank of its own belongs to the view \"\"");
    const auto same = std::find_if(views.begin(), views.end(), [&](const auto& view) { return view.name == name; });
    if (same == views.end())
      views.push_back({std::move(name), rank, {rank}, layout});
    else if (same->trainable == layout)
      same->ranks.insert(rank);
    else
      throw Error(
          fmt::format("nodes of ranks {:g} and {:g} would share one model: {} takes no nodes of different ranks; "
                      "choose a rule that "
                      "does, or give all nodes one rank",
                      same->rank, rank, stages.aggregator.get_deleter().label()));
  }
  std::sort(views.begin(), views.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return views;
}

}  // namespace hansa::pipeline
