// How studies deal one collection of records to nodes. Pure functions of their arguments: the same seed gives the same
// partition. An assignment says for each record which node has it. Throws Error when there are fewer records than nodes.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace hansa::data {

using Assignment = std::vector<std::uint32_t>;

Assignment deal_evenly(std::size_t records, std::size_t nodes, std::uint64_t seed);  // iid; sizes differ by one at most
// Label skew (arXiv 1905.12022, 2102.02079): of each label, the nodes' shares are drawn from a Dirichlet distribution; small
// `alpha`: few nodes have nearly all of it.
Assignment deal_by_dirichlet(std::span<const std::uint32_t> labels, std::size_t nodes, double alpha,
                             std::uint64_t seed);
// Quantity skew (arXiv 2102.02079): the nodes' sizes are drawn from a Dirichlet distribution, their records at random.
Assignment deal_by_quantity(std::size_t records, std::size_t nodes, double alpha, std::uint64_t seed);
// Natural users: all records with one value stay together. As many nodes as values, in the values' order; with fewer
// nodes whole values are dealt to them, the largest first, each to the node that has least.
Assignment deal_by_value(std::span<const std::uint32_t> values, std::size_t nodes);
// Pathological label skew (arXiv 1602.05629): sorted by label, cut into equal shards, so many of them for each node.
Assignment deal_by_shards(std::span<const std::uint32_t> labels, std::size_t nodes, std::size_t shards_each,
                          std::uint64_t seed);

std::size_t smallest_share(const Assignment&, std::size_t nodes);
// A draw of Dirichlet(alpha, …, alpha): sums to one.
std::vector<double> dirichlet(std::size_t count, double alpha, std::uint64_t seed);

}  // namespace hansa::data
