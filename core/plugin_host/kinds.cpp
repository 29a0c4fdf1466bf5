#include "plugin_host/kinds.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "plugin_host/build_note.hpp"

namespace hansa {
namespace {

constexpr KindFacts kKinds[] = {
    {{}, "model", "hansa/model.hpp", "[model]", "the architecture over a Hugging Face checkpoint"},
    {{}, "adapter", "hansa/adapter.hpp", "[adapter]", "which parameters train, as injections into named modules"},
    {{}, "data_source", "hansa/data_source.hpp", "[data]", "how a silo's files become batches"},
    {{}, "trainer", "hansa/trainer.hpp", "[trainer]", "what a node does in its turn"},
    {{}, "compressor", "hansa/compressor.hpp", "[[codec]]", "one stage of the codec chain"},
    {{}, "privacy", "hansa/privacy.hpp", "[privacy]", "clip bound, noise, and what it costs"},
    {{}, "aggregator", "hansa/aggregator.hpp", "[aggregator]", "how the updates of a cohort become one change"},
    {{}, "server_optimizer", "hansa/server_optimizer.hpp", "[server_optimizer]", "how the aggregate moves the model"},
    {{}, "selector", "hansa/selection.hpp", "[selector]", "who works in a round"},
    {{}, "round_policy", "hansa/selection.hpp", "[round_policy]", "when a round closes"},
    {{}, "evaluator", "hansa/evaluator.hpp", "[evaluator]", "what is measured on held-out data"},
};

}  // namespace

std::vector<KindFacts> known_kinds() {
  const auto interfaces = kinds_of(host_note());
  std::vector<KindFacts> known;
  for (const auto& facts : kKinds) {
    for (const auto& interface : interfaces) {
      if (!interface.starts_with(facts.kind) || interface[facts.kind.size()] != '/') continue;
      known.push_back(facts);
      known.back().interface = interface;
    }
  }
  if (known.size() != interfaces.size())
    throw Error("a kind of the SDK's headers is missing from the host's list of kinds");
  return known;
}

}  // namespace hansa
