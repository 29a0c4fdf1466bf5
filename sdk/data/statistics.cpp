#include "data/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace hansa::data {

namespace {

double part(double p, double q) {  // of p's divergence from the mean of both
  return p > 0 ? p * std::log2(2 * p / (p + q)) : 0;
}

}  // namespace

std::uint32_t quantile(std::vector<std::uint32_t> lengths, double part_below) {
  if (lengths.empty()) return 0;
  const auto rank = std::clamp<double>(std::ceil(part_below * static_cast<double>(lengths.size())) - 1, 0,
                                       static_cast<double>(lengths.size() - 1));
  const auto at = lengths.begin() + static_cast<std::ptrdiff_t>(rank);
  std::ranges::nth_element(lengths, at);
  return *at;
}

std::vector<double> divergences(std::span<const SiloStatistics> silos) {
  std::unordered_map<std::uint64_t, std::uint64_t> all;
  double total = 0;
  for (const auto& silo : silos)
    for (const auto& [word, count] : silo.counts) {
      all[word] += count;
      total += static_cast<double>(count);
    }
  std::vector<double> result;
  for (const auto& silo : silos) {
    double own = 0;
    for (const auto& [word, count] : silo.counts) own += static_cast<double>(count);
    const double rest = total - own;
    if (own == 0 || rest == 0) {
      result.push_back(0);
      continue;
    }
    double sum = 0;
    for (const auto& [word, count] : all) {
      const auto at = silo.counts.find(word);
      const double here = at == silo.counts.end() ? 0 : static_cast<double>(at->second);
      const double p = here / own, q = (static_cast<double>(count) - here) / rest;
      sum += part(p, q) + part(q, p);
    }
    result.push_back(std::clamp(sum / 2, 0.0, 1.0));
  }
  return result;
}

std::vector<double> label_distances(std::span<const SiloStatistics> silos) {
  std::map<std::string, std::uint64_t> all;
  double total = 0;
  for (const auto& silo : silos)
    for (const auto& [label, count] : silo.labels) {
      all[label] += count;
      total += static_cast<double>(count);
    }
  std::vector<double> result;
  for (const auto& silo : silos) {
    double own = 0, sum = 0;
    for (const auto& [label, count] : silo.labels) own += static_cast<double>(count);
    for (const auto& [label, count] : all) {
      const auto at = silo.labels.find(label);
      const double here = at == silo.labels.end() ? 0 : static_cast<double>(at->second);
      sum += std::abs((own > 0 ? here / own : 0) - static_cast<double>(count) / total);
    }
    result.push_back(own > 0 ? sum / 2 : 0);
  }
  return result;
}

double gini(std::vector<double> sizes) {
  const double total = std::accumulate(sizes.begin(), sizes.end(), 0.0);
  if (sizes.empty() || total <= 0) return 0;
  std::ranges::sort(sizes);
  double weighted = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) weighted += static_cast<double>(i + 1) * sizes[i];
  const auto n = static_cast<double>(sizes.size());
  return 2 * weighted / (n * total) - (n + 1) / n;
}

}  // namespace hansa::data
