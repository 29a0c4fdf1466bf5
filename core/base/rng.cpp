#include "base/rng.hpp"

#include <string>

#include "base/digest.hpp"
#include "base/ids.hpp"

namespace hansa {

std::uint64_t derive_seed(std::uint64_t seed, std::string_view purpose, std::initializer_list<std::uint64_t> parts) {
  std::string text(reinterpret_cast<const char*>(&seed), sizeof seed);
  text += purpose;
  text += '\0';
  for (auto part : parts) text.append(reinterpret_cast<const char*>(&part), sizeof part);
  return xxh3_64(text);
}

std::uint64_t SplitMix64::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
double SplitMix64::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
std::uint64_t SplitMix64::below(std::uint64_t bound) {
  const std::uint64_t reject_from = bound * (~0ull / bound);  // the last, incomplete stretch would be biased
  std::uint64_t draw = next();
  while (draw >= reject_from) draw = next();
  return draw % bound;
}

NodeId node_id(std::string_view name) { return xxh3_64(name) >> 1; }

bool is_node_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || name[0] == '.' || name[0] == '-') return false;
  for (char c : name) {
    const bool fits =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (!fits) return false;
  }
  return true;
}

}  // namespace hansa
