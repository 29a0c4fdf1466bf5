// Deterministic randomness: one run seed, and a name for each purpose. Never for noise, cohort draws under DP, or keys.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace hansa {

// A seed for one purpose, from another seed: derive(run_seed, "data", {node, round}).
std::uint64_t derive_seed(std::uint64_t seed, std::string_view purpose,
                          std::initializer_list<std::uint64_t> parts = {});

class SplitMix64 {  // Steele, Lea, Flood 2014: fixed transform, the same on every machine
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  double uniform();                          // [0, 1), 53 bits
  std::uint64_t below(std::uint64_t bound);  // [0, bound), unbiased

 private:
  std::uint64_t state_;
};

}  // namespace hansa
