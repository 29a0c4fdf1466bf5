#include "bucketing.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include <ATen/ops/empty.h>
#include <hansa/plugin.hpp>

#include "base/rng.hpp"

namespace hansa::bucketing {
namespace {

std::uint64_t largest_bytes(const Layout& layout, const Group& group) {
  std::uint64_t largest = 0;
  for (auto member : group.members)
    largest = std::max(largest, static_cast<std::uint64_t>(layout.tensors.at(member).elements()) * sizeof(float));
  return largest;
}

void require_one_shape(const Updates& updates, const std::vector<std::size_t>& bucket) {
  for (std::size_t member = 0; member < updates.group().members.size(); ++member)
    for (auto client : bucket)
      if (updates.tensor(member, updates.who(client).view).shape !=
          updates.tensor(member, updates.who(bucket[0]).view).shape)
        throw std::invalid_argument("bucketing averages tensors of one shape; '" + updates.tensor(member).name +
                                    "' differs between clients");
}

}  // namespace

std::uint64_t traits(const Params& params) {
  // What the inner rule does to buckets it does to the whole. It may still choose a bucket of one client.
  constexpr std::uint64_t kInners = HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_RELEASES_INDIVIDUALS | HANSA_TRAIT_FLAT |
                                    HANSA_TRAIT_GROWS_WITH_RANK | HANSA_TRAIT_KEEPS_HISTORY | HANSA_TRAIT_STATELESS;
  return (params.inner.traits & kInners) | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_ELEMENTWISE_MEAN;
}

std::vector<std::vector<std::size_t>> draw(const Updates& updates, std::size_t size, std::uint64_t seed) {
  std::vector<std::size_t> order(updates.clients());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto by_node = [&](std::size_t a, std::size_t b) { return updates.who(a).node < updates.who(b).node; };
  std::stable_sort(order.begin(), order.end(), by_node);  // the draw hangs on who is there, not on how they are listed
  SplitMix64 rng(seed);
  for (std::size_t left = order.size(); left > 1; --left) std::swap(order[left - 1], order[rng.below(left)]);

  std::vector<std::vector<std::size_t>> buckets;
  for (std::size_t first = 0; first < order.size(); first += size) {
    const auto end = std::min(order.size(), first + size);
    buckets.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(first),
                         order.begin() + static_cast<std::ptrdiff_t>(end));
    std::stable_sort(buckets.back().begin(), buckets.back().end(), by_node);
  }
  std::stable_sort(buckets.begin(), buckets.end(), [&](const auto& a, const auto& b) { return by_node(a[0], b[0]); });
  return buckets;
}

Buckets::Buckets(const Updates& clients, std::size_t size, std::uint64_t seed)
    : Decorated(clients), buckets_(draw(clients, size, seed)) {
  for (const auto& bucket : buckets_) {
    require_one_shape(clients, bucket);
    auto sum = clients.who(bucket[0]);
    for (std::size_t i = 1; i < bucket.size(); ++i) {
      const auto& other = clients.who(bucket[i]);
      sum.weight += other.weight;
      sum.examples += other.examples;
      sum.tokens += other.tokens;
      sum.steps += other.steps;
    }
    who_.push_back(std::move(sum));
  }
}

// Weighted, in node order. Own loops: an element sees the same operations in a slice and in the whole.
template <class Get>
at::Tensor Buckets::mean(std::size_t bucket, Get get) const {
  const auto& clients = buckets_.at(bucket);
  if (clients.size() == 1) return get(clients[0]);
  const double total = who_[bucket].weight;
  at::Tensor sum;
  for (auto client : clients) {
    const double part = total > 0 ? inner_.who(client).weight / total : 1.0 / static_cast<double>(clients.size());
    const auto share = static_cast<float>(part);
    const at::Tensor one = get(client).contiguous();
    const float* from = one.const_data_ptr<float>();
    const bool first = !sum.defined();
    if (first) sum = at::empty(one.sizes(), at::TensorOptions().dtype(at::kFloat));
    float* to = sum.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < one.numel(); ++i) to[i] = first ? share * from[i] : to[i] + share * from[i];
  }
  return sum;
}

at::Tensor Buckets::delta(std::size_t bucket, std::size_t member) const {
  return mean(bucket, [&](std::size_t client) { return inner_.delta(client, member); });
}
at::Tensor Buckets::value(std::size_t bucket, std::size_t member) const {
  return mean(bucket, [&](std::size_t client) { return inner_.value(client, member); });
}
at::Tensor Buckets::slice(std::size_t bucket, std::size_t member, std::int64_t first, std::int64_t count) const {
  return mean(bucket, [&](std::size_t client) { return inner_.slice(client, member, first, count); });
}

Bucketing::Bucketing(Params params, Host& host)
    : size_(static_cast<std::size_t>(params.size)),
      seed_(host.seed("buckets")),
      inner_(host.inner<Aggregator>(params.inner.params)) {}

Exchange Bucketing::exchange(const Layout& trainable, const RoundPlan& plan, const NodeFacts& node) const {
  auto exchange = inner_->exchange(trainable, plan, node);
  if (!exchange.up.empty())
    throw std::invalid_argument("bucketing cannot wrap a rule that collects a channel of its own ('" +
                                exchange.up[0].name + "'): what it carries has no mean");
  return exchange;
}

// The inner rule's for as many clients as there are buckets, and one client's tensor while a bucket is averaged.
std::uint64_t Bucketing::workspace(const Layout& layout, const Group& group, std::size_t clients) const {
  return inner_->workspace(layout, group, (clients + size_ - 1) / size_) + largest_bytes(layout, group);
}

void Bucketing::begin(const RoundPlan& plan) {
  round_seed_ = derive_seed(seed_, "round", {plan.round});
  inner_->begin(plan);
}
void Bucketing::survey(const Updates& updates) { inner_->survey(Buckets(updates, size_, round_seed_)); }
void Bucketing::reduce(const Updates& updates, Results& results) {
  inner_->reduce(Buckets(updates, size_, round_seed_), results);
}

}  // namespace hansa::bucketing

HANSA_PLUGIN(org_hansa_bucketing, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<bucketing::Bucketing, bucketing::Params>(
          "bucketing", "Averages random buckets of clients and hands these to another rule: robust to unlike data.")
      .doc(
          "arXiv 2006.09365 (s-bucketing). A bucket's mean is weighted; its weight is the sum. The draw is new in "
          "every "
          "round. A rule that withstands f of n clients withstands f of ceil(n / size) buckets, so there must be more "
          "clients. Not for rules that return a sum (fedavg): the host divides a sum only where it is its own rule's.")
      .maturity(Maturity::Beta)
      .traits([](const bucketing::Params& p) { return bucketing::traits(p); })
      .param(&bucketing::Params::inner, "inner", "The rule that sees the buckets, such as { use = \"krum\" }.",
             of_kind("aggregator"), required())
      .param(&bucketing::Params::size, "size", "Clients in a bucket.", range(1, 1 << 20), "clients")
      .check([](const bucketing::Params& p, Problems& problems) {
        if (p.inner.traits & HANSA_TRAIT_ADDITIVE)
          problems.add("inner", "returns a weighted sum, which only the host can divide",
                       "use it alone, or put a rule that gives a mean or a median here");
      });
}
