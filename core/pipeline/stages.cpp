#include "pipeline/stages.hpp"

#include <fmt/format.h>

namespace hansa::pipeline {

Codecs make_codecs(const std::vector<config::ComponentSpec>& stages, const StrategyRegistry& registry,
                   const HostServices& services) {
  Codecs codecs;
  std::vector<const Compressor*> chain;
  for (const auto& codec : stages) {
    codecs.compressors.push_back(make<Compressor>(codec, registry, services));
    chain.push_back(codecs.compressors.back().get());
  }
  codecs.chain = CodecChain(std::move(chain));
  return codecs;
}

Stages::Stages(const config::RunSpec& spec, const StrategyRegistry& registry, const HostServices& services)
    : trainer(make<Trainer>(spec.trainer, registry, services)),
      aggregator(make<Aggregator>(spec.aggregator, registry, services)),
      server_optimizer(make<ServerOptimizer>(spec.server_optimizer, registry, services)),
      selector(make<Selector>(spec.selector, registry, services)),
      round_policy(make<RoundPolicy>(spec.round_policy, registry, services)),
      codec_instances(make_codecs(spec.codecs, registry, services)),
      downlink_instances(make_codecs(spec.downlink, registry, services)),
      codecs(codec_instances.chain),
      downlink(downlink_instances.chain),
      additive(spec.aggregator.traits.flags & HANSA_TRAIT_ADDITIVE) {
  if (!spec.privacy.component) return;
  privacy = make<Privacy>(spec.privacy, registry, services);
  central_noise = spec.privacy.traits.flags & HANSA_TRAIT_CENTRAL_NOISE;
}

std::vector<std::pair<std::string, Component*>> Stages::components() const {
  std::vector<std::pair<std::string, Component*>> all;
  const auto add = [&](std::string_view kind, const auto& instance) {  // a state is of one kind of component, by its id
    all.emplace_back(fmt::format("{} {}", kind, instance.get_deleter().component().id), instance.get());
  };
  add("aggregator", aggregator);
  add("server_optimizer", server_optimizer);
  add("selector", selector);
  add("round_policy", round_policy);
  if (privacy) add("privacy", privacy);
  return all;
}

}  // namespace hansa::pipeline
