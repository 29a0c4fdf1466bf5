#include "factors/pairs.hpp"

#include <fmt/format.h>
#include <hansa/aggregator.hpp>

#include "base/error.hpp"

namespace hansa::factors {

std::vector<Pair> pairs_of(const Layout& layout, std::string_view rule) {
  std::vector<Pair> pairs;
  for (const auto& group : layout.groups) {
    if (group.kind != kPairKind || group.members.size() != 2)
      throw Error(
          fmt::format("aggregator {} works on low-rank pairs only, and '{}' is no part of one: use the adapter "
                      "`lora`, or another aggregator",
                      rule, group.members.empty() ? "" : layout.tensors.at(group.members.front()).name));
    pairs.push_back({group.members[0], group.members[1], group.scale});
  }
  return pairs;
}

void require_pair(const Updates& updates, std::string_view rule) {
  if (updates.group().kind == kPairKind && updates.group().members.size() == 2) return;
  throw Error(fmt::format("aggregator {} needs both factors of a low-rank pair, and got '{}' alone", rule,
                          updates.tensor(0).name));
}

std::vector<double> shares_of(const Updates& updates, std::string_view rule) {
  std::vector<double> shares;
  double total = 0;
  for (std::size_t client = 0; client < updates.clients(); ++client) {
    shares.push_back(updates.who(client).weight);
    total += shares.back();
  }
  if (!shares.empty() && !(total > 0))
    throw Error(fmt::format("aggregator {}: the weights of {} clients sum to {}; a mean needs more than 0", rule,
                            shares.size(), total));
  for (auto& share : shares) share /= total;
  return shares;
}

}  // namespace hansa::factors
