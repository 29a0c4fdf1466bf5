#include "data/partition.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/rng.hpp"

namespace hansa::data {

namespace {

using Records = std::vector<std::uint32_t>;

void shuffle(Records& records, SplitMix64& random) {
  for (std::size_t i = records.size(); i > 1; --i) std::swap(records[i - 1], records[random.below(i)]);
}
Records first_numbers(std::size_t count) {
  Records all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

double normal(SplitMix64& random) {  // Box and Muller
  const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
  return radius * std::cos(2 * std::numbers::pi * random.uniform());
}

// The logarithm, because a gamma variate of a small shape is often less than the smallest double. Marsaglia and Tsang 2000;
// below one: gamma(a) = gamma(a + 1) u^(1/a).
double log_gamma_variate(double shape, SplitMix64& random) {
  if (shape < 1) return log_gamma_variate(shape + 1, random) + std::log(1 - random.uniform()) / shape;
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = normal(random), t = 1 + c * x;
    if (t <= 0) continue;
    const double v = t * t * t;
    if (std::log(1 - random.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return std::log(d * v);
  }
}

std::vector<double> draw(std::size_t count, double alpha, SplitMix64& random) {
  std::vector<double> shares(count);
  for (auto& share : shares) share = log_gamma_variate(alpha, random);
  const double most = *std::ranges::max_element(shares);
  double sum = 0;
  for (auto& share : shares) sum += share = std::exp(share - most);
  for (auto& share : shares) share /= sum;
  return shares;
}

// Gives the records out in order by cumulative shares, which rounds each node's number to a neighbour of its exact one.
void give_out(const Records& records, const std::vector<double>& shares, Assignment& assignment) {
  double cumulative = 0;
  std::size_t from = 0;
  for (std::size_t node = 0; node < shares.size(); ++node) {
    cumulative += shares[node];
    const auto to =
        node + 1 == shares.size()
            ? records.size()
            : std::min(records.size(),
                       static_cast<std::size_t>(std::llround(cumulative * static_cast<double>(records.size()))));
    for (; from < to; ++from) assignment[records[from]] = static_cast<std::uint32_t>(node);
  }
}

void check(std::size_t records, std::size_t nodes) {
  if (nodes == 0) throw Error("a partition needs at least one node");
  if (records < nodes) throw Error(fmt::format("{} records cannot be dealt to {} nodes", records, nodes));
}
void check_alpha(double alpha) {
  if (!(alpha > 0) || !std::isfinite(alpha)) throw Error(fmt::format("alpha = {} is not a number above 0", alpha));
}

std::vector<Records> by_label(std::span<const std::uint32_t> labels) {
  std::vector<Records> groups;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= groups.size()) groups.resize(labels[i] + 1);
    groups[labels[i]].push_back(static_cast<std::uint32_t>(i));
  }
  return groups;
}

}  // namespace

std::vector<double> dirichlet(std::size_t count, double alpha, std::uint64_t seed) {
  check_alpha(alpha);
  SplitMix64 random(derive_seed(seed, "partition.dirichlet"));
  return draw(count, alpha, random);
}

Assignment deal_evenly(std::size_t records, std::size_t nodes, std::uint64_t seed) {
  check(records, nodes);
  SplitMix64 random(derive_seed(seed, "partition.evenly"));
  auto order = first_numbers(records);
  shuffle(order, random);
  Assignment assignment(records);
  for (std::size_t i = 0; i < records; ++i) assignment[order[i]] = static_cast<std::uint32_t>(i % nodes);
  return assignment;
}

Assignment deal_by_dirichlet(std::span<const std::uint32_t> labels, std::size_t nodes, double alpha,
                             std::uint64_t seed) {
  check(labels.size(), nodes);
  check_alpha(alpha);
  Assignment assignment(labels.size());
  auto groups = by_label(labels);
  for (std::size_t label = 0; label < groups.size(); ++label) {
    SplitMix64 random(derive_seed(seed, "partition.label", {label}));
    shuffle(groups[label], random);
    give_out(groups[label], draw(nodes, alpha, random), assignment);
  }
  return assignment;
}

Assignment deal_by_quantity(std::size_t records, std::size_t nodes, double alpha, std::uint64_t seed) {
  check(records, nodes);
  check_alpha(alpha);
  SplitMix64 random(derive_seed(seed, "partition.quantity"));
  auto order = first_numbers(records);
  shuffle(order, random);
  Assignment assignment(records);
  give_out(order, draw(nodes, alpha, random), assignment);
  return assignment;
}

Assignment deal_by_value(std::span<const std::uint32_t> values, std::size_t nodes) {
  const auto groups = by_label(values);
  check(groups.size(), nodes);
  std::vector<std::uint32_t> node_of(groups.size());
  std::iota(node_of.begin(), node_of.end(), 0);
  if (nodes < groups.size()) {
    auto order = first_numbers(groups.size());
    std::ranges::stable_sort(order, [&](auto a, auto b) { return groups[a].size() > groups[b].size(); });
    std::vector<std::size_t> held(nodes);
    for (const auto value : order) {
      const auto least = std::ranges::min_element(held) - held.begin();
      node_of[value] = static_cast<std::uint32_t>(least);
      held[static_cast<std::size_t>(least)] += groups[value].size();
    }
  }
  Assignment assignment(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) assignment[i] = node_of[values[i]];
  return assignment;
}

Assignment deal_by_shards(std::span<const std::uint32_t> labels, std::size_t nodes, std::size_t shards_each,
                          std::uint64_t seed) {
  const auto shards = nodes * shards_each;
  check(labels.size(), shards);
  SplitMix64 random(derive_seed(seed, "partition.shards"));
  auto order = first_numbers(labels.size());
  shuffle(order, random);  // within a label
  std::ranges::stable_sort(order, [&](auto a, auto b) { return labels[a] < labels[b]; });
  auto hands = first_numbers(shards);
  shuffle(hands, random);
  Assignment assignment(labels.size());
  for (std::size_t shard = 0; shard < shards; ++shard)
    for (auto i = shard * order.size() / shards; i < (shard + 1) * order.size() / shards; ++i)
      assignment[order[i]] = static_cast<std::uint32_t>(hands[shard] / shards_each);
  return assignment;
}

std::size_t smallest_share(const Assignment& assignment, std::size_t nodes) {
  std::vector<std::size_t> counts(nodes);
  for (const auto node : assignment) ++counts.at(node);
  return nodes == 0 ? 0 : std::ranges::min(counts);
}

}  // namespace hansa::data
