// Promises of aggregators by trait that need more than a sum to be checked: exact, flat, without a history.
#include <algorithm>

#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>
#include <factors/pairs.hpp>

#include "conformance/aggregator_checks.hpp"

namespace hansa::conformance {
namespace {

constexpr double kExact = 1e-5;  // of the largest element: fp32 factors

// ---- exact: the mean of the products, as dense matrices in double ----------------------------------------------------------

at::Tensor dense(const at::Tensor& B, const at::Tensor& A, double scale) {
  return at::matmul(B.to(at::kDouble), A.to(at::kDouble)).mul(scale);
}

// One pair of a round. A factor that rests this round is the same on all nodes; any value of it will do.
struct PairOfRound {
  const testing::FakeUpdates& updates;
  std::optional<std::size_t> a, b;  // members that travel
  at::Tensor resting;

  at::Tensor A(std::size_t client) const { return a ? updates.value(client, *a) : resting; }
  at::Tensor B(std::size_t client) const { return b ? updates.value(client, *b) : resting; }
};

PairOfRound pair_of(const testing::FakeUpdates& updates, const CohortShape& shape, std::size_t module) {
  PairOfRound pair{updates, {}, {}, {}};
  for (std::size_t member = 0; member < updates.group().members.size(); ++member)
    (updates.tensor(member).name.ends_with("lora_A") ? pair.a : pair.b) = member;
  const auto [out, in] = shape.low_rank.at(module);
  if (!pair.a) pair.resting = random_tensor({shape.rank, in}, 5);
  if (!pair.b) pair.resting = random_tensor({out, shape.rank}, 5);
  return pair;
}

at::Tensor mean_product(const PairOfRound& pair) {
  const auto& updates = pair.updates;
  double weights = 0;
  at::Tensor sum;
  for (std::size_t client = 0; client < updates.clients(); ++client) {
    const auto& who = updates.who(client);
    const auto product = dense(pair.B(client), pair.A(client), updates.scale(who.view) * who.weight);
    sum = sum.defined() ? sum.add(product) : product;
    weights += who.weight;
  }
  return sum.div(weights);
}

// The value that a member of the view "" has after the round.
at::Tensor moved(const PairOfRound& pair, std::size_t member, const Changes& changes, double divide) {
  const auto& updates = pair.updates;
  for (std::size_t client = 0; client < updates.clients(); ++client)
    if (updates.who(client).view.empty())
      return updates.value(client, member).sub(updates.delta(client, member)) +
             changes.at(updates.tensor(member).name).div(divide);
  throw NotConcerned("no client has the rank of the pipeline");
}

// What the rule added to the frozen weights: products of the pairs that it appended to a Log channel laid out in pairs.
at::Tensor appended(const Exchange& exchange, const Changes& others, std::size_t module) {
  at::Tensor sum;
  for (const auto& channel : exchange.down) {
    if (channel.keep != Keep::Log || channel.layout.groups.size() <= module) continue;
    const auto& group = channel.layout.groups[module];
    if (group.kind != factors::kPairKind) continue;
    const auto named = [&](std::size_t member) {
      return others.find(
          fmt::format("{} in channel '{}'", channel.layout.tensors.at(group.members.at(member)).name, channel.name));
    };
    const auto right = named(0), left = named(1);
    if (right == others.end() || left == others.end()) continue;
    const auto product = dense(left->second, right->second, group.scale);
    sum = sum.defined() ? sum.add(product) : product;
  }
  return sum;
}

// Each view holds the nearest product of its rank, or as near a one (Eckart and Young).
void nearest_in_each_view(const PairOfRound& pair, const Changes& others, const at::Tensor& want) {
  const auto spectrum = at::linalg_svdvals(want);
  for (const auto& view : pair.updates.views()) {
    const auto of_view = [&](std::size_t member) {
      const auto& name = pair.updates.tensor(member, view).name;
      const auto found = others.find(fmt::format("{} of view '{}'", name, view));
      hold(found != others.end(), fmt::format("'{}' is given for other views, and not for '{}'", name, view));
      return found->second;
    };
    const auto got = dense(of_view(*pair.b), of_view(*pair.a), pair.updates.scale(view));
    const auto rank = std::min(pair.updates.tensor(*pair.a, view).shape.at(0), spectrum.size(0));
    const double least = spectrum.narrow(0, rank, spectrum.size(0) - rank).norm().item<double>();
    const double off = got.sub(want).norm().item<double>(), size = want.norm().item<double>();
    hold(off <= least + kExact * size,
         fmt::format("it declares Exact, but view '{}' is {:.3g} away from the mean of the products; a product of rank "
                     "{} can be as near as {:.3g}",
                     view, off, rank, least));
  }
}

void exact_in(const Subject& subject, Aggregator& rule, Cohort& cohort, Round round) {
  const auto plan = cohort.plan(round);
  const auto groups = groups_of(rule, cohort, plan);
  const auto exchange = rule.exchange(cohort.layout(), plan, {});
  Recorded results;
  play_round(rule, cohort, round, results);
  double weights = 0;
  for (const auto& client : cohort.clients()) weights += client.who.weight;
  std::size_t module = 0;
  for (const auto& updates : groups) {
    if (updates.group().kind != factors::kPairKind) continue;
    const auto pair = pair_of(updates, cohort.shape(), module);
    const auto want = mean_product(pair);
    const auto& changes = results.changes();
    if (std::any_of(results.others().begin(), results.others().end(),
                    [](const auto& one) { return one.first.find(" of view '") != std::string::npos; })) {
      nearest_in_each_view(pair, results.others(), want);
    } else {
      const double divide = subject.declares(HANSA_TRAIT_ADDITIVE) ? weights : 1;
      auto got = dense(pair.b ? moved(pair, *pair.b, changes, divide) : pair.resting,
                       pair.a ? moved(pair, *pair.a, changes, divide) : pair.resting, updates.scale(""));
      if (const auto more = appended(exchange, results.others(), module); more.defined()) got = got.add(more);
      const double off = relative_error(got, want);
      hold(off <= kExact, fmt::format("it declares Exact, but what nodes compute with differs from the mean of the "
                                      "clients' products by {:.3g} of the largest element in round {}",
                                      off, round));
    }
    ++module;
  }
}

void exact(const Subject& subject) {
  needs(subject, HANSA_TRAIT_EXACT, "Exact");
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto rule = subject.make<Aggregator>();
    for (const Round round : {1, 2}) exact_in(subject, *rule, cohort, round);  // roles may alternate
  });
}

// ---- flat ------------------------------------------------------------------------------------------------------------------

// The same cohort with all of an update in one tensor.
Cohort in_one(const Cohort& parts) {
  auto shape = parts.shape();
  std::int64_t elements = 0;
  for (const auto& spec : parts.layout().tensors) elements += spec.elements();
  shape.lone = {{elements}};
  shape.low_rank.clear();
  Cohort one(shape, 1);
  for (std::size_t i = 0; i < one.clients().size(); ++i) {
    const auto& from = parts.clients()[i];
    std::vector<at::Tensor> all;
    for (const auto& spec : parts.layout().tensors) all.push_back(from.deltas.at(spec.name).flatten());
    auto& to = one.clients()[i];
    to.who = from.who;
    to.deltas.begin()->second = at::cat(all);
  }
  return one;
}

void flat(const Subject& subject) {
  needs(subject, HANSA_TRAIT_FLAT, "Flat");
  if (!subject.groups().empty()) throw NotConcerned("it asks for groups, which one tensor cannot be");
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto parts = changes_of(subject, cohort);
    std::vector<at::Tensor> all;
    for (const auto& spec : cohort.layout().tensors) {
      hold(parts.contains(spec.name), fmt::format("'{}' is missing", spec.name));
      all.push_back(parts.at(spec.name).flatten());
    }
    auto one = in_one(cohort);
    const auto want = changes_of(subject, one);
    same_changes({{want.begin()->first, at::cat(all)}}, want,
                 "it declares Flat: the same updates, cut into tensors and as one vector");
  });
}

// ---- history ---------------------------------------------------------------------------------------------------------------

void earlier_rounds_do_not_matter(const Subject& subject) {
  if (subject.declares(HANSA_TRAIT_KEEPS_HISTORY)) throw NotConcerned("it declares KeepsHistory");
  if (subject.make<Aggregator>()->state_version() == 0) throw NotConcerned("it has no state");
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto used = subject.make<Aggregator>(), fresh = subject.make<Aggregator>();
    auto before = cohort;
    for (auto& client : before.clients())
      for (auto& [name, delta] : client.deltas) delta = delta.mul(-3).add(0.5);
    Recorded nothing(Recorded::Keep::Nothing), got, want;
    play_round(*used, before, 1, nothing);
    play_round(*used, cohort, 2, got);
    play_round(*fresh, cohort, 2, want);
    const auto found = difference(got.trace(), want.trace());
    hold(found.empty(), "it does not declare KeepsHistory, but an earlier round changes what it gives: " + found);
  });
}

}  // namespace

std::vector<Check> aggregator_trait_checks() {
  return {
      {"exact", "Exact: nodes compute with the mean of the products, against dense matrices.", exact},
      {"flat", "Flat: how an update is cut into tensors does not matter.", flat},
      {"history", "Without KeepsHistory: earlier rounds do not matter.", earlier_rounds_do_not_matter},
  };
}

}  // namespace hansa::conformance
