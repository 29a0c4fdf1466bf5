// What a differentially private release cost, as the ledger journals it and the accountant reads it. Torch-free values.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include <hansa/types.hpp>

namespace hansa {

struct DpEvent {
  std::string mechanism;        // "gaussian"; "" when nothing is spent
  double noise_multiplier = 0;  // standard deviation of the noise over the sensitivity of the sum under `adjacency`
  double sampling_rate = 1;     // below 1 only where each node is drawn independently (Poisson), so AddRemove
  std::uint64_t count = 1;
  Adjacency adjacency = Adjacency::AddRemove;
  bool operator==(const DpEvent&) const = default;
};

constexpr std::string_view name_of(Adjacency adjacency) {
  switch (adjacency) {
    case Adjacency::AddRemove: return "add or remove one node";
    case Adjacency::ZeroOut: return "one node's contribution replaced by zero";
    case Adjacency::ReplaceOne: return "one node replaced by another";
  }
  return "?";
}

}  // namespace hansa
