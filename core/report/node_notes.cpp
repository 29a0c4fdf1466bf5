#include "report/node_notes.hpp"

#include <sstream>

#include <nlohmann/json.hpp>

#include "base/file.hpp"

namespace hansa {
namespace {

std::istringstream lines_of(const std::filesystem::path& path) {
  return std::istringstream(std::filesystem::exists(path) ? read_file(path) : std::string());
}

}  // namespace

Curves curves_of(const std::filesystem::path& metrics, std::string_view name) {
  Curves curves;
  auto lines = lines_of(metrics);
  std::string line;
  while (std::getline(lines, line)) {  // round,node,metric,value: names hold no commas
    std::istringstream cells(line);
    std::string round, node, metric, value;
    if (!std::getline(cells, round, ',') || !std::getline(cells, node, ',') || !std::getline(cells, metric, ',') ||
        !std::getline(cells, value))
      continue;
    const bool of_set = node.empty() && metric.size() > name.size() + 1 && metric[name.size()] == '.';
    if (!metric.starts_with(name) || (metric.size() > name.size() && !of_set)) continue;
    const auto whose = of_set ? metric.substr(name.size() + 1) : node;
    if (!whose.empty()) curves[whose].emplace_back(std::stod(round), std::stod(value));
  }
  return curves;
}

std::vector<GivenUp> given_up(const std::filesystem::path& events) {
  std::vector<GivenUp> all;
  auto lines = lines_of(events);
  std::string line;
  while (std::getline(lines, line)) {
    const auto event = nlohmann::json::parse(line, nullptr, false);
    if (event.is_discarded() || event.value("event", "") != "work_abandoned") continue;
    all.push_back({event.value("node", ""), event.value("round", Round{0}), event.value("reason", "")});
  }
  return all;
}

std::map<std::string, std::uint64_t> counts_of(const std::filesystem::path& metrics, std::string_view name) {
  std::map<std::string, std::uint64_t> counts;
  for (const auto& [node, points] : curves_of(metrics, name))
    counts[node] = static_cast<std::uint64_t>(points.back().second);
  return counts;
}

}  // namespace hansa
