// What a run's own files tell about single nodes, for the report at its end: metrics over the rounds, records that could not
// be used, work that was given up. Under central DP those files hold nothing of it, and so do these. Any thread. A missing
// file is an empty one; throws Error where one cannot be read.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hansa/types.hpp>

namespace hansa {

// The points (round, value) of the metric `name` for each node, or of `name`.SET for each set of the coordinator's own.
using Curves = std::map<std::string, std::vector<std::pair<double, double>>>;
Curves curves_of(const std::filesystem::path& metrics, std::string_view name);

struct GivenUp {
  std::string node;
  Round round = 0;
  std::string reason;
};
// Work that nodes gave up: training that diverged, a silo that cannot be read.
std::vector<GivenUp> given_up(const std::filesystem::path& events);

// The last value of a count for each node; nodes without it are left out.
std::map<std::string, std::uint64_t> counts_of(const std::filesystem::path& metrics, std::string_view name);

}  // namespace hansa
