#include "round/participation.hpp"

#include <algorithm>

#include "round/records.hpp"

namespace hansa {

std::vector<Round> rounds_of(NodeId node, std::span<const std::string> journal) {
  std::vector<Round> rounds;
  records::Closed folded;  // the last: a round that was given up after it is opened and closed again
  for (const auto& line : journal) {
    const auto record = records::from_json(line);
    if (const auto* closed = std::get_if<records::Closed>(&record)) folded = *closed;
    const auto* released = std::get_if<records::Released>(&record);
    if (!released || released->round != folded.round || released->attempt != folded.attempt) continue;
    if (std::ranges::binary_search(folded.cohort, node)) rounds.push_back(released->round);
  }
  return rounds;
}

}  // namespace hansa
