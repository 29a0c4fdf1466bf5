// The kinds of components that this host serves, as people are told about them. Pure: any thread.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace hansa {

struct KindFacts {
  std::string interface;     // "aggregator/1"
  std::string_view kind;     // "aggregator"
  std::string_view header;   // "hansa/aggregator.hpp"
  std::string_view section;  // of a pipeline file: "[aggregator]", "[[codec]]"
  std::string_view decides;
};
// All that the host's build note names, in the order of a pipeline.
std::vector<KindFacts> known_kinds();

}  // namespace hansa
