// The coordinator's half of a pipeline, made from a resolved spec: one instance per stage, owned here. Made once by the
// program that coordinates, on its main thread; used on the round thread (codecs also where uploads are screened).
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <hansa/aggregator.hpp>
#include <hansa/privacy.hpp>
#include <hansa/selection.hpp>
#include <hansa/server_optimizer.hpp>
#include <hansa/trainer.hpp>

#include "config/run_spec.hpp"
#include "plugin_host/instance.hpp"
#include "tensor/codec_chain.hpp"

namespace hansa::pipeline {

class GuardedCodec final : public CodecGuard {  // a stage that a chain calls through the plugin guard
 public:
  explicit GuardedCodec(Instance<Compressor> codec) : codec_(std::move(codec)) {}
  const Compressor* codec() const { return codec_.get(); }
  void call(const CallPlace& place, const std::function<void()>& stage) const override {
    guard(codec_, place, [&](Compressor&) { stage(); });
  }

 private:
  Instance<Compressor> codec_;
};
struct Codecs {  // the chain and what it borrows
  std::vector<std::unique_ptr<const GuardedCodec>> stages;
  CodecChain chain;
  CodecChain first(std::size_t stages) const;  // those alone
};
Codecs make_codecs(const std::vector<config::ComponentSpec>&, const StrategyRegistry&, const HostServices&);
using LayoutsByRank =
    std::map<double, Layout>;  // 0: the adapter's own rank, always there; then those that nodes ask for

template <class Interface>
Instance<Interface> make(const config::ComponentSpec& spec, const StrategyRegistry& registry,
                         const HostServices& services) {
  return create<Interface>(registry, *spec.component, spec.params, services);
}

struct Stages {
  Stages(const config::RunSpec&, const StrategyRegistry&, const HostServices&);
  Stages() : codecs(codec_instances.chain), downlink(downlink_instances.chain) {}  // a test fills them in

  Instance<Trainer> trainer;  // for the channels that it names; it trains on nodes only

  Instance<Aggregator> aggregator;
  Instance<ServerOptimizer> server_optimizer;
  Instance<Privacy> privacy;  // null: no mechanism
  Instance<Selector> selector;
  Instance<RoundPolicy> round_policy;
  Codecs codec_instances, downlink_instances;
  const CodecChain& codecs;    // upwards
  const CodecChain& downlink;  // downwards; empty: versions are sent as they are
  bool additive = false;       // the aggregator returns weighted sums
  bool central_noise = false;  // central DP: nothing about single nodes is shown

  // All whose state belongs to a checkpoint, each through its guard.
  void each_component(std::string_view doing,
                      const std::function<void(const std::string& name, Component&)>& use) const;
};

}  // namespace hansa::pipeline
