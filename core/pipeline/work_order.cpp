#include "pipeline/work_order.hpp"

#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/rng.hpp"

namespace hansa::pipeline {
namespace {

using nlohmann::json;

json layout_json(const Layout& layout) {
  json tensors = json::array(), groups = json::array();
  for (const auto& tensor : layout.tensors) {
    tensors.push_back({{"name", tensor.name}, {"dtype", static_cast<int>(tensor.dtype)}, {"shape", tensor.shape}});
  }
  for (const auto& group : layout.groups) {
    groups.push_back({{"kind", group.kind}, {"members", group.members}, {"scale", group.scale}});
  }
  return {{"tensors", std::move(tensors)}, {"groups", std::move(groups)}};
}
Layout layout_from(const json& from) {
  Layout layout;
  for (const auto& tensor : from.at("tensors")) {
    const auto dtype = tensor.at("dtype").get<int>();
    if (dtype < 0 || dtype > static_cast<int>(DType::i64)) throw Error(fmt::format("unknown dtype {}", dtype));
    layout.tensors.push_back(
        {tensor.at("name"), static_cast<DType>(dtype), tensor.at("shape").get<std::vector<std::int64_t>>()});
  }
  for (const auto& group : from.at("groups")) {
    layout.groups.push_back({group.at("kind"), group.at("members").get<std::vector<Index>>(), group.at("scale")});
    for (auto member : layout.groups.back().members) {
      if (member >= layout.tensors.size())
        throw Error(fmt::format("a group names tensor {} of {}", member, layout.tensors.size()));
    }
  }
  return layout;
}

json channels_json(const std::vector<Channel>& channels) {
  json list = json::array();
  for (const auto& channel : channels) {
    list.push_back({{"name", channel.name},
                    {"layout", layout_json(channel.layout)},
                    {"carry", static_cast<int>(channel.carry)},
                    {"keep", static_cast<int>(channel.keep)},
                    {"for_trainer", channel.for_trainer}});
  }
  return list;
}
std::vector<Channel> channels_from(const json& from) {
  std::vector<Channel> channels;
  for (const auto& channel : from) {
    channels.push_back({channel.at("name"), layout_from(channel.at("layout")),
                        static_cast<Carry>(channel.at("carry").get<int>()),
                        static_cast<Keep>(channel.at("keep").get<int>()), channel.at("for_trainer")});
  }
  return channels;
}

}  // namespace

std::string to_json(const WorkOrder& order) {
  std::vector<int> roles;
  for (auto role : order.exchange.roles) roles.push_back(static_cast<int>(role));
  json out = {{"round", order.plan.round},
              {"attempt", order.plan.attempt},
              {"base", order.plan.base},
              {"population", order.plan.population},
              {"expected_cohort", order.plan.expected_cohort},
              {"sampling_rate", order.plan.sampling_rate},
              {"rounds", order.rounds},
              {"view", order.exchange.view},
              {"roles", roles},
              {"up", channels_json(order.exchange.up)},
              {"down", channels_json(order.exchange.down)}};
  if (std::isfinite(order.clip_bound)) out["clip_bound"] = order.clip_bound;
  return out.dump();
}

WorkOrder work_order_from_json(std::string_view text) {
  try {
    const auto from = json::parse(text);
    WorkOrder order;
    order.plan.round = from.at("round");
    order.plan.attempt = from.at("attempt");
    order.plan.base = from.at("base");
    order.plan.population = from.at("population");
    order.plan.expected_cohort = from.at("expected_cohort");
    order.plan.sampling_rate = from.at("sampling_rate");
    order.rounds = from.at("rounds");
    order.exchange.view = from.at("view");
    for (const auto& role : from.at("roles")) order.exchange.roles.push_back(static_cast<Role>(role.get<int>()));
    order.exchange.up = channels_from(from.at("up"));
    order.exchange.down = channels_from(from.at("down"));
    if (from.contains("clip_bound")) order.clip_bound = from.at("clip_bound");
    return order;
  } catch (const json::exception& bad) {
    throw Error(fmt::format(
        "the coordinator's work order cannot be read ({}): are both sides the same version of hansa?", bad.what()));
  }
}

std::uint64_t common_seed(std::uint64_t run_seed, Round round) {
  return derive_seed(run_seed, "codec, common", {round});
}
std::uint64_t down_seed(std::uint64_t run_seed) { return derive_seed(run_seed, "codec, down", {}); }
std::uint64_t own_seed(std::uint64_t run_seed, Round round, NodeId node) {
  return derive_seed(run_seed, "codec, own", {round, node});
}
std::uint64_t training_seed(std::uint64_t run_seed, Round round, NodeId node) {
  return derive_seed(run_seed, "training", {round, node});
}

}  // namespace hansa::pipeline
