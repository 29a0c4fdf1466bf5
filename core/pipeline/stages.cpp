#include "pipeline/stages.hpp"

#include <fmt/format.h>

namespace hansa::pipeline {

Codecs make_codecs(const std::vector<config::ComponentSpec>& stages, const StrategyRegistry& registry,
                   const HostServices& services) {
  Codecs codecs;
  for (const auto& codec : stages)
    codecs.stages.push_back(std::make_unique<const GuardedCodec>(make<Compressor>(codec, registry, services)));
  codecs.chain = codecs.first(codecs.stages.size());
  return codecs;
}

CodecChain Codecs::first(std::size_t count) const {
  std::vector<const Compressor*> compressors;
  std::vector<const CodecGuard*> guards;
  for (std::size_t i = 0; i < count; ++i) {
    compressors.push_back(stages[i]->codec());
    guards.push_back(stages[i].get());
  }
  return CodecChain(std::move(compressors), std::move(guards));
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

void Stages::each_component(std::string_view doing,
                            const std::function<void(const std::string& name, Component&)>& use) const {
  const auto add = [&](std::string_view kind, const auto& instance) {  // a state is of one kind of component, by its id
    const auto name = fmt::format("{} {}", kind, instance.get_deleter().component().id);
    guard(instance, {.doing = doing}, [&](Component& component) { use(name, component); });
  };
  add("aggregator", aggregator);
  add("server_optimizer", server_optimizer);
  add("selector", selector);
  add("round_policy", round_policy);
  if (privacy) add("privacy", privacy);
}

}  // namespace hansa::pipeline
