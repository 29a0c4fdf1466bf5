#include "pipeline/rules.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <hansa/value.hpp>

namespace hansa::pipeline {
namespace {

using config::quoted_list;
using config::RunSpec;
using config::Severity;

bool central_dp(const RunSpec& spec) { return has(spec.privacy, HANSA_TRAIT_CENTRAL_NOISE); }
bool any_dp(const RunSpec& spec) { return central_dp(spec) || has(spec.privacy, HANSA_TRAIT_LOCAL_NOISE); }

using Slot = config::ComponentSpec RunSpec::*;

Value defaults_of(const HansaComponent&);
std::optional<config::ComponentSpec> at_defaults(const ComponentCatalog&, std::string_view kind,
                                                 const std::string& name);

// Errors of a pipeline that is tried; what it would exchange is not known.
std::ptrdiff_t errors_of(const RuleInput& in, const RunSpec& tried) {
  return std::ranges::count_if(static_rules(), [&](const Rule& rule) {
    return rule.severity == Severity::Error &&
           rule.look({tried, in.catalog, in.trainable, nullptr, Advice::Unwanted}).has_value();
  });
}

// Components with the trait that may take the slot, at their defaults, in a pipeline that is otherwise `spec`: those with the
// fewest errors, and no more than the pipeline in hand has.
std::vector<std::string> legal(const RuleInput& in, const RunSpec& spec, std::string_view kind, std::uint64_t trait,
                               Slot slot) {
  auto fewest = errors_of(in, in.spec);
  std::vector<std::pair<std::ptrdiff_t, std::string>> tried;
  for (auto& name : having(in.catalog, kind, trait)) {
    auto with = spec;
    with.*slot = *at_defaults(in.catalog, kind, name);
    tried.emplace_back(errors_of(in, with), std::move(name));
    fewest = std::min(fewest, tried.back().first);
  }
  std::vector<std::string> names;
  for (auto& [errors, name] : tried)
    if (errors == fewest) names.push_back(std::move(name));
  return names;
}

// "use `a` or `b`" among what is installed and would be legal here, or `otherwise`.
std::string offer(const RuleInput& in, std::string_view kind, std::uint64_t trait, Slot slot,
                  std::string_view otherwise) {
  if (in.advice == Advice::Unwanted) return {};
  const auto names = legal(in, in.spec, kind, trait, slot);
  return names.empty() ? std::string(otherwise) : "use " + quoted_list(names, "or");
}

// Rules that are exact for pairs of factors; where the server optimiser is in the way, those that are legal without it.
std::string offer_exact(const RuleInput& in) {
  constexpr std::string_view kNone = "no installed rule is exact for low-rank factors and legal in this pipeline";
  if (in.advice == Advice::Unwanted) return {};
  if (auto names = legal(in, in.spec, "aggregator", HANSA_TRAIT_EXACT, &RunSpec::aggregator); !names.empty())
    return "use " + quoted_list(names, "or");
  for (const auto& plain : having(in.catalog, "server_optimizer", HANSA_TRAIT_PLAIN_AVERAGING)) {
    auto spec = in.spec;
    spec.server_optimizer = *at_defaults(in.catalog, "server_optimizer", plain);
    if (const auto names = legal(in, spec, "aggregator", HANSA_TRAIT_EXACT, &RunSpec::aggregator); !names.empty())
      return fmt::format("use {}, with server optimiser `{}` at its defaults", quoted_list(names, "or"), plain);
  }
  return std::string(kNone);
}

// Does the adapter train pairs of factors whose product is what counts? Known exactly from the layout, else from its traits.
bool trains_factors(const RuleInput& in) {
  if (in.trainable)
    return std::any_of(in.trainable->groups.begin(), in.trainable->groups.end(),
                       [](const auto& g) { return g.members.size() > 1; });
  return in.spec.adapter.component && *in.spec.adapter.traits.groups;
}

std::optional<Finding> weights_without_bound(const RuleInput& in) {
  const auto& weights = in.spec.weights;
  if (!central_dp(in.spec) || weights.weighting == "uniform" || weights.max_weight) return std::nullopt;
  return Finding{
      "aggregator.weighting",
      fmt::format(
          "central DP with clients weighted by {}: a client's weight, and with it the sensitivity, has no bound",
          weights.weighting),
      "set aggregator.weighting = \"uniform\", or cap it with aggregator.max_weight = …, which enters the sensitivity"};
}

std::optional<Finding> no_amplification(const RuleInput& in) {
  const auto& spec = in.spec;
  if (!central_dp(spec) || !spec.selector.component || !spec.round_policy.component ||
      adjacency_of(spec) == Adjacency::AddRemove)
    return std::nullopt;
  const bool early = has(spec.round_policy, HANSA_TRAIT_CLOSES_EARLY);
  const auto why =
      early ? fmt::format("round policy `{}` may close a round before its whole cohort answered", spec.round_policy.use)
            : fmt::format("selector `{}` does not draw each node independently", spec.selector.use);
  auto selectors = having(in.catalog, "selector", HANSA_TRAIT_POISSON);
  const auto everyone = having(in.catalog, "selector", HANSA_TRAIT_EVERYONE);
  selectors.insert(selectors.end(), everyone.begin(), everyone.end());
  const auto mend = early ? std::string("to count sampling, use a policy that waits for the whole cohort")
                          : "to count sampling, use the selector " + quoted_list(selectors, "or");
  return Finding{early ? "round_policy.use" : "selector.use",
                 fmt::format("`{}` gains nothing from sampling: {}", spec.privacy.use, why),
                 "epsilon is stated at sampling rate 1, for zero-out adjacency (a node's update against none; one node "
                 "replaced by "
                 "another counts twice the clip bound); " +
                     mend};
}

bool amplified(const RunSpec& spec) {
  return central_dp(spec) && has(spec.selector, HANSA_TRAIT_POISSON) && adjacency_of(spec) == Adjacency::AddRemove;
}

std::optional<Finding> memory_beside_sampling(const RuleInput& in) {
  if (!in.spec.error_feedback || !amplified(in.spec)) return std::nullopt;
  return Finding{
      "error_feedback.decay",
      fmt::format("error memory carries what a node learnt in earlier rounds into this one, and the accountant of "
                  "`{}` with sampling does not model that",
                  in.spec.privacy.use),
      "it is bounded only because the coordinator clips after the memory was added; leave [error_feedback] out "
      "for a clean statement"};
}

std::optional<Finding> memory_under_local_noise(const RuleInput& in) {
  if (!in.spec.error_feedback || !has(in.spec.privacy, HANSA_TRAIT_LOCAL_NOISE)) return std::nullopt;
  return Finding{
      "error_feedback.decay",
      fmt::format("the memory would keep the noise of `{}` and send it later, cancelling what protects the node",
                  in.spec.privacy.use),
      "leave [error_feedback] out under local DP"};
}

std::optional<Finding> stale_memory(const RuleInput& in) {
  const auto& spec = in.spec;
  if (!spec.error_feedback || !spec.selector.component || has(spec.selector, HANSA_TRAIT_EVERYONE)) return std::nullopt;
  return Finding{
      "error_feedback.decay",
      fmt::format("selector `{}` does not ask every node in every round: a node's memory waits until it is drawn "
                  "again, and is then out of date",
                  spec.selector.use),
      "lower error_feedback.decay (0.9 or less), or " +
          offer(in, "selector", HANSA_TRAIT_EVERYONE, &RunSpec::selector, "let every node take part")};
}

std::string rank_text(const config::NodeSpec& node) {
  return node.rank == 0 ? "the pipeline's rank" : fmt::format("rank {:g}", node.rank);
}

std::optional<Finding> different_ranks(const RuleInput& in) {
  const auto& nodes = in.spec.nodes;
  const auto odd =
      std::find_if(nodes.begin(), nodes.end(), [&](const auto& n) { return n.rank != nodes.front().rank; });
  const auto& aggregator = in.spec.aggregator;
  if (odd == nodes.end() || !aggregator.component || has(aggregator, HANSA_TRAIT_RANK_AWARE)) return std::nullopt;
  return Finding{fmt::format("node.{}.rank", odd->listed),
                 fmt::format("`{}` has {} and `{}` {}, and `{}` cannot put factors of different ranks together",
                             nodes.front().name, rank_text(nodes.front()), odd->name, rank_text(*odd), aggregator.use),
                 offer(in, "aggregator", HANSA_TRAIT_RANK_AWARE, &RunSpec::aggregator,
                       "no installed rule takes different ranks here") +
                     ", or give all nodes one rank"};
}

std::optional<Finding> outside_the_clip(const RuleInput& in) {
  if (!any_dp(in.spec) || !in.exchange) return std::nullopt;
  for (const auto& channel : in.exchange->up) {
    if (channel.carry != Carry::Collect) continue;
    return Finding{
        "trainer.use",
        fmt::format("channel `{}` is sent as it is, outside the clip and the noise of `{}`", channel.name,
                    in.spec.privacy.use),
        "choose a trainer and an aggregator that send only real numbers that are summed, or leave out the noise"};
  }
  return std::nullopt;
}

std::optional<Finding> mean_of_factors(const RuleInput& in) {
  const auto& aggregator = in.spec.aggregator;
  if (!trains_factors(in) || !has(aggregator, HANSA_TRAIT_ELEMENTWISE_MEAN) || has(aggregator, HANSA_TRAIT_EXACT))
    return std::nullopt;
  return Finding{"aggregator.use",
                 fmt::format("`{}` averages the two factors of `{}` one by one, but mean(B) mean(A) is not mean(B A)",
                             aggregator.use, in.spec.adapter.use),
                 offer_exact(in) + "; the gap is small while the nodes' factors stay close"};
}

std::optional<Finding> noise_on_no_sum(const RuleInput& in) {
  const auto& aggregator = in.spec.aggregator;
  if (!central_dp(in.spec) || !aggregator.component || has(aggregator, HANSA_TRAIT_ADDITIVE) ||
      has(aggregator, HANSA_TRAIT_STATES_SENSITIVITY))
    return std::nullopt;
  return Finding{
      "aggregator.use",
      fmt::format("`{}` is no weighted sum and states no sensitivity: the noise of `{}` would protect nobody",
                  aggregator.use, in.spec.privacy.use),
      offer(in, "aggregator", HANSA_TRAIT_ADDITIVE, &RunSpec::aggregator,
            "no installed rule is a weighted sum that is legal here") +
          ", or leave out the noise"};
}

std::optional<Finding> whole_numbers(const RuleInput& in) {
  if (!in.trainable) return std::nullopt;
  const auto real = [](DType type) {
    return type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::f8e4m3;
  };
  std::vector<std::string> found;
  for (const auto& tensor : in.trainable->tensors)
    if (!real(tensor.dtype)) found.push_back(fmt::format("{} ({})", tensor.name, name_of(tensor.dtype)));
  if (found.empty()) return std::nullopt;
  const auto count = found.size();
  constexpr std::size_t kShown = 3;
  if (count > kShown) found.resize(kShown);
  return Finding{"adapter.use",
                 fmt::format("`{}` trains {} tensor{} of whole numbers: {}{}", in.spec.adapter.use, count,
                             count == 1 ? "" : "s", quoted_list(found, "and"), count > kShown ? ", …" : ""),
                 "only real numbers can be averaged, clipped and noised: leave these out of the trainable layout"};
}

std::optional<Finding> metrics_of_single_nodes(const RuleInput& in) {
  if (!any_dp(in.spec) || in.spec.privacy_host.client_metrics != "publish") return std::nullopt;
  return Finding{"privacy.client_metrics",
                 fmt::format("single nodes' losses and counts would be published beside the protected result of `{}`",
                             in.spec.privacy.use),
                 "set privacy.client_metrics = \"withhold\": nothing about a single node leaves then"};
}

std::optional<Finding> undone_exactness(const RuleInput& in) {
  const auto& optimizer = in.spec.server_optimizer;
  if (!has(in.spec.aggregator, HANSA_TRAIT_EXACT) || !optimizer.component ||
      has(optimizer, HANSA_TRAIT_PLAIN_AVERAGING))
    return std::nullopt;
  return Finding{"server_optimizer.use",
                 fmt::format("`{}` gives the exact mean of the products, and `{}` undoes it", in.spec.aggregator.use,
                             optimizer.use),
                 offer(in, "server_optimizer", HANSA_TRAIT_PLAIN_AVERAGING, &RunSpec::server_optimizer,
                       "add the aggregate as it is") +
                     ", with its defaults"};
}

std::optional<Finding> individuals(const RuleInput& in, bool under_dp) {
  if (!has(in.spec.aggregator, HANSA_TRAIT_RELEASES_INDIVIDUALS) || any_dp(in.spec) != under_dp) return std::nullopt;
  return Finding{
      "aggregator.use",
      fmt::format("what `{}` sends back to the nodes holds the contributions of single nodes", in.spec.aggregator.use),
      under_dp ? "under DP that breaks the guarantee: " +
                     offer(in, "aggregator", HANSA_TRAIT_ADDITIVE, &RunSpec::aggregator, "use a weighted sum")
               : "every node can read the others' updates: use it among parties that trust each other"};
}
std::optional<Finding> individuals_under_dp(const RuleInput& in) { return individuals(in, true); }
std::optional<Finding> individuals_in_the_open(const RuleInput& in) { return individuals(in, false); }

// The rules that a config alone can break (17: together with config.json). The others of the table are enforced where they
// happen, or concern stages that do not exist yet.
constexpr std::array kRules{
    Rule{7, Severity::Error, "central DP with weights that a client can raise without bound", weights_without_bound},
    Rule{9, Severity::Warning, "central DP with a cohort that is no Poisson sample of all nodes", no_amplification},
    Rule{10, Severity::Warning, "error feedback beside DP amplified by sampling", memory_beside_sampling},
    Rule{10, Severity::Error, "error feedback under local DP", memory_under_local_noise},
    Rule{11, Severity::Warning, "error feedback with nodes that are not asked in every round", stale_memory},
    Rule{12, Severity::Error, "nodes of different ranks with a rule that takes one", different_ranks},
    Rule{13, Severity::Warning, "plain mean of low-rank factors", mean_of_factors},
    Rule{14, Severity::Error, "DP with channels outside the joint clip", outside_the_clip},
    Rule{16, Severity::Error, "central DP on a rule that is no weighted sum and states no sensitivity",
         noise_on_no_sum},
    Rule{17, Severity::Error, "whole numbers in the trainable layout", whole_numbers},
    Rule{19, Severity::Error, "DP with published client metrics", metrics_of_single_nodes},
    Rule{22, Severity::Error, "an exact rule with a server optimiser other than plain averaging", undone_exactness},
    Rule{23, Severity::Error, "DP with a downlink that holds single contributions", individuals_under_dp},
    Rule{23, Severity::Warning, "a downlink that holds single contributions", individuals_in_the_open},
};

// All defaults of a component; what is required stays out.
Value defaults_of(const HansaComponent& component) {
  Value table;
  for (std::uint32_t i = 0; i < component.param_count; ++i)
    if (component.params[i]->default_value)
      table.set(component.params[i]->name, Value::copy(*component.params[i]->default_value));
  return table;
}

std::optional<config::ComponentSpec> at_defaults(const ComponentCatalog& catalog, std::string_view kind,
                                                 const std::string& name) {
  const auto* component = catalog.find(kind, name);
  if (!component || !component->traits) return std::nullopt;
  config::ComponentSpec spec{
      std::string(kind), name, component, defaults_of(*component), {sizeof(HansaTraits), 0, ""}, {}};
  if (component->traits(component, &spec.params.raw(), &spec.traits) != 0) return std::nullopt;
  return spec;
}

}  // namespace

std::span<const Rule> static_rules() { return kRules; }

void check_rules(config::LoadResult& loaded, const ComponentCatalog& catalog, const Layout* trainable,
                 const Exchange* exchange) {
  if (loaded.unreadable || !loaded.parsed) return;
  for (const auto& rule : kRules)
    if (auto found = rule.look({loaded.spec, catalog, trainable, exchange}))
      loaded.report(rule.severity, found->key, std::move(found->what), std::move(found->help), rule.number);
}

Adjacency adjacency_of(const RunSpec& spec) {
  const bool independent = has(spec.selector, HANSA_TRAIT_POISSON) || has(spec.selector, HANSA_TRAIT_EVERYONE);
  return independent && !has(spec.round_policy, HANSA_TRAIT_CLOSES_EARLY) ? Adjacency::AddRemove : Adjacency::ZeroOut;
}

bool has(const config::ComponentSpec& spec, std::uint64_t trait) { return (spec.traits.flags & trait) == trait; }

bool takes_ranks(const RunSpec& spec) { return has(spec.aggregator, HANSA_TRAIT_RANK_AWARE); }

std::vector<std::string> having(const ComponentCatalog& catalog, std::string_view kind, std::uint64_t traits) {
  std::vector<std::string> names;
  for (auto& name : catalog.names(kind)) {
    const auto spec = at_defaults(catalog, kind, name);
    if (spec && has(*spec, traits)) names.push_back(std::move(name));
  }
  return names;
}

}  // namespace hansa::pipeline
