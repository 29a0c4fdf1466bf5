// What can be said about silos without training on them: sizes, lengths, and how far each is from the others. Values and
// pure functions.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace hansa::data {

struct SiloStatistics {
  std::string name;
  std::uint64_t records = 0, bytes = 0, units = 0;          // units: tokens or words
  std::vector<std::uint32_t> lengths;                       // in units, of each record
  std::unordered_map<std::uint64_t, std::uint64_t> counts;  // of each token or word (its hash)
  std::map<std::string, std::uint64_t> labels;
};

// The value below which this part of the sorted lengths lies, the nearest rank; 0 of nothing.
std::uint32_t quantile(std::vector<std::uint32_t> lengths, double part);
// Jensen-Shannon divergence in bits, 0 (alike) to 1 (nothing in common), between each silo's words and those of all others
// together; 0 where there is one silo.
std::vector<double> divergences(std::span<const SiloStatistics>);
// Half the sum of absolute differences between the shares of labels in each silo and in all of them: 0 to 1.
std::vector<double> label_distances(std::span<const SiloStatistics>);
double gini(std::vector<double> sizes);  // 0: all alike; towards 1: one has all

}  // namespace hansa::data
