// Which rounds a node was part of, as the journal of a run tells it: its update was accepted, folded and released. Read after
// a run, by the report's local-only baselines. Pure; throws Error for records of another version.
#pragma once
#include <span>
#include <string>
#include <vector>

#include <hansa/types.hpp>

namespace hansa {

std::vector<Round> rounds_of(NodeId node, std::span<const std::string> journal);  // ascending

}  // namespace hansa
