// Plugins for tests of the host: of each kind one that does its work plainly until it does what a plugin must not.
//
// On nodes (trainer, codec) `node` says on which: its process is known by the command line, since a codec is told no name.
#include "mischief.hpp"

#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <thread>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/plugin.hpp>

namespace hansa::mischief {
namespace {

bool this_process_is(const std::string& node) {
  if (node.empty()) return true;
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string words{std::istreambuf_iterator<char>(file), {}};
  using namespace std::string_literals;
  return words.find("\0--name\0"s + node + "\0"s) != std::string::npos;
}

// What is the same for all kinds; the others do what is left.
void misbehave(What what, const Host& host) {
  switch (what) {
    case What::Throw: throw std::runtime_error("the moon is full");
    case What::ThrowNumber: throw 42;
    case What::Crash: std::raise(SIGSEGV); return;
    case What::Hang:
      for (;;) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    case What::Linger:  // long, but it listens
      while (!host.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      throw std::runtime_error("cancelled, as I was asked");
    default: return;
  }
}

constexpr std::string_view kBeat = "beat";  // a channel of the trainer's own

}  // namespace

Exchange Rule::exchange(const Layout& trainable, const RoundPlan& plan, const NodeFacts& node) const {
  if (params_.what == What::Exchange && is_now(plan)) throw std::runtime_error("the moon is full");
  auto exchange = Aggregator::exchange(trainable, plan, node);
  for (const auto& group : trainable.groups)
    if (params_.personal) exchange.roles.at(group.members.back()) = Role::Personal;
  return exchange;
}
bool Rule::is_now(const RoundPlan& plan) const {
  return plan.round == static_cast<Round>(params_.round) &&
         (params_.attempts == 0 || plan.attempt <= static_cast<std::uint32_t>(params_.attempts));
}
void Rule::begin(const RoundPlan& plan) { now_ = is_now(plan); }
void Rule::reduce(const Updates& updates, Results& results) {
  const auto what = now_ ? params_.what : What::Nothing;
  const auto& shape = updates.tensor(0).shape;
  misbehave(what, host_);
  if (what == What::NotFinite) results.put(0, at::full(shape, std::numeric_limits<float>::quiet_NaN()));
  if (what == What::Shape) results.put(0, at::zeros({1, 1, 1, 7}));
  if (what == What::DType) results.put(0, at::zeros(shape, at::TensorOptions().dtype(at::kLong)));
  if (what == What::Forget || what == What::NotFinite) return;
  for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
    auto sum = at::zeros(updates.tensor(member).shape);
    for (std::size_t client = 0; client < updates.clients(); ++client)
      sum.add_(updates.delta(client, member), updates.who(client).weight);
    results.put(member, sum);
  }
}

Codec::Codec(Params params, Host& host)
    : what_(this_process_is(params.node) ? params.what : What::Nothing), host_(host) {}
SizePlan Codec::plan(const TensorSpec& in) const {
  const auto bytes = static_cast<std::uint64_t>(in.elements()) * size_of(in.dtype);
  return {{in}, bytes, bytes};
}
Encoded Codec::encode(const at::Tensor& in, Seeds) const {
  misbehave(what_, host_);
  if (what_ == What::Shape) return {{at::zeros({1, 7})}, {}};
  return {{in}, {}};
}
at::Tensor Codec::decode(const Encoded& encoded, const TensorSpec&, std::uint64_t) const { return encoded.parts.at(0); }

Walker::Walker(Params params, Host& host)
    : what_(this_process_is(params.node) ? params.what : What::Nothing), round_(params.round), host_(host) {}
std::vector<Channel> Walker::up(const Layout&) const {
  return {{std::string(kBeat), {{{"pulse", DType::f32, {3}}}, {}}, Carry::Mean, Keep::Latest, true}};
}
TrainResult Walker::train(Model&, Adapter& adapter, DataSource&, const TrainContext& context) {
  const at::NoGradGuard no_grad;
  now_ = context.plan.round == static_cast<Round>(round_) ? what_ : What::Nothing;
  misbehave(now_, host_);
  for (Index i = 0; i < context.exchange.roles.size(); ++i) {
    if (context.exchange.roles[i] != Role::Shared) continue;
    auto parameter = adapter.parameter(i);
    if (now_ == What::NotFinite)
      parameter.fill_(std::numeric_limits<float>::quiet_NaN());
    else
      parameter.add_(0.001);
  }
  return {1, 1, 1, {{"loss", 1.0}}};
}
std::vector<at::Tensor> Walker::outgoing(std::string_view) {
  if (now_ == What::DType) return {at::zeros({3}, at::TensorOptions().dtype(at::kLong))};
  return {now_ == What::Shape ? at::zeros({1, 7}) : at::zeros({3})};
}

std::vector<NodeId> Chooser::choose(std::span<const NodeFacts> registered, DrawRng&) {
  std::vector<NodeId> all;
  Round last = 0;
  for (const auto& node : registered) {
    all.push_back(node.node);
    last = std::max(last, node.last_seen);
  }
  if (last + 1 >= static_cast<Round>(params_.round)) misbehave(params_.what, host_);
  return all;
}

double Bound::clip_bound(const RoundPlan& plan) const { return fail(When::ClipBound, plan), 1000; }
std::optional<DpEvent> Bound::event(const RoundPlan& plan) const { return fail(When::Event, plan), std::nullopt; }
void Bound::begin_release(const RoundPlan& plan, const Sensitivity&) { fail(When::BeginRelease, plan); }
void Bound::fail(When here, const RoundPlan& plan) const {
  if (params_.when == here && plan.round == static_cast<Round>(params_.round))
    throw std::runtime_error("the moon is full");
}

Next Patience::decide(const RoundStatus& status) {
  misbehave(params_.what, host_);
  return status.running > 0 ? Next::Wait : Next::Close;
}

}  // namespace hansa::mischief

HANSA_PLUGIN(org_hansa_mischief, "0.1.0") {
  using namespace hansa;
  using namespace hansa::mischief;
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  const auto acts = choices({"nothing", "throw", "throw_number", "not_finite", "shape", "dtype", "forget", "crash",
                             "hang", "linger", "exchange"});
  plugin.add<Rule, Rule::Params>("mischief", "A sum that misbehaves in one round.")
      .traits(HANSA_TRAIT_ADDITIVE)
      .param(&Rule::Params::what, "what", "What it does.", acts)
      .param(&Rule::Params::round, "round", "In which round.", at_least(1))
      .param(&Rule::Params::attempts, "attempts", "In how many attempts at it; 0: all.", at_least(0))
      .param(&Rule::Params::personal, "personal", "The last tensor of every group stays on its node.");
  plugin.add<Codec, Codec::Params>("mischief", "Sends tensors as they are, and misbehaves on one node.")
      .traits(HANSA_TRAIT_LOSSLESS | HANSA_TRAIT_STATELESS)
      .param(&Codec::Params::what, "what", "What it does.", acts)
      .param(&Codec::Params::node, "node", "On which node; empty: everywhere.");
  plugin.add<Walker, Walker::Params>("mischief", "Adds a little to every parameter, and misbehaves on one node.")
      .param(&Walker::Params::what, "what", "What it does.", acts)
      .param(&Walker::Params::round, "round", "In which round.", at_least(1))
      .param(&Walker::Params::node, "node", "On which node; empty: everywhere.");
  plugin.add<Chooser, Chooser::Params>("mischief", "Everyone, until a round from which on it misbehaves.")
      .traits(HANSA_TRAIT_EVERYONE | HANSA_TRAIT_STATELESS)
      .param(&Chooser::Params::what, "what", "What it does.", acts)
      .param(&Chooser::Params::round, "round", "From which round on.", at_least(1));
  plugin.add<Bound, Bound::Params>("mischief", "A wide clip bound that fails in one of its calls.")
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Bound::Params::when, "when", "In which call.", choices({"never", "clip_bound", "event", "begin_release"}))
      .param(&Bound::Params::round, "round", "In which round.", at_least(1));
  plugin.add<Patience, Patience::Params>("mischief", "Waits for all, and misbehaves when asked.")
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Patience::Params::what, "what", "What it does.", acts);
}
