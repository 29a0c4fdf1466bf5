#include "report/quotients.hpp"

namespace hansa {

void add(Sums& to, const Metrics& sums) {
  for (const auto& [name, value] : sums) to[name] += value;
}

std::map<std::string, double> quotients(const Sums& sums) {
  const auto sum_of = [&](const char* name) {
    const auto at = sums.find(name);
    return at == sums.end() ? 0.0 : at->second;
  };
  const double bytes = sum_of("bytes"), labels = sum_of("tokens");
  std::map<std::string, double> found;
  for (const auto& [name, value] : sums) {
    if (name == "bytes" || name == "tokens" || name == "documents") continue;
    if (name == "nats" && bytes > 0)
      found["nats_per_byte"] = value / bytes;
    else if (labels > 0)
      found[name + "_per_label"] = value / labels;
  }
  return found;
}

}  // namespace hansa
