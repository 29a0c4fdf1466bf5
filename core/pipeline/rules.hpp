// The rule table: which combinations of stages are unsound, and why. Each rule looks at the traits that components declare,
// never at their names; a message that offers alternatives asks the catalog for a trait, and offers those alone that would
// break no other rule. Called after a pipeline was
// resolved, by `hansa check` and by every command that runs one. Torch-free, pure, any thread.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/catalog.hpp>
#include <hansa/types.hpp>

#include "config/load.hpp"

namespace hansa::pipeline {

enum class Advice : std::uint8_t { Wanted, Unwanted };
struct RuleInput {
  const config::RunSpec& spec;  // components may be null where the config has errors
  const ComponentCatalog& catalog;
  const Layout* trainable = nullptr;   // of the adapter, when the model's modules are known
  const Exchange* exchange = nullptr;  // of the first round, when they are
  Advice advice = Advice::Wanted;      // Unwanted: a pipeline is tried, and nobody reads how to mend it
};
struct Finding {
  std::string key;  // the setting to point at: "aggregator.weighting"
  std::string what;
  std::string help;
};
struct Rule {
  int number;  // of the design's table of rules
  config::Severity severity;
  const char* when;  // one line, for the documentation
  std::optional<Finding> (*look)(const RuleInput&);
};

std::span<const Rule> static_rules();

// Adds what the rules find to loaded.diagnostics, sorted by position.
void check_rules(config::LoadResult& loaded, const ComponentCatalog& catalog, const Layout* trainable = nullptr,
                 const Exchange* exchange = nullptr);

// What a central mechanism may claim (rule 9). AddRemove: each node is in the cohort independently, so sampling amplifies.
// ZeroOut: the cohort's size is fixed or the round may close early; the accountant uses rate 1 and the neighbouring run is
// the one in which a node's update is all zeros (a node replaced by another counts twice the clip bound).
Adjacency adjacency_of(const config::RunSpec&);

bool has(const config::ComponentSpec&, std::uint64_t trait);
bool takes_ranks(const config::RunSpec&);  // may its nodes have adapters of different ranks? (rule 12)
// Components of this kind that have all `traits` at their default parameters.
std::vector<std::string> having(const ComponentCatalog&, std::string_view kind, std::uint64_t traits);

}  // namespace hansa::pipeline
