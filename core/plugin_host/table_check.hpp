// Is what a plugin says about itself fit for use? Checked once, right after the entry was called, so that everybody else may
// trust the tables. Pure.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/plugin.h>

namespace hansa {

// The first thing wrong with the tables, as a sentence's end ("component 'x': …"), or nothing. `kinds`: those that the
// file's build note names; a component of any other kind was not compared with this host.
std::optional<std::string> table_problem(const HansaPlugin*, const std::vector<std::string>& kinds);
bool is_component_id(std::string_view);           // [a-z][a-z0-9_-]*, at most 64
std::string_view kind_of(const HansaComponent&);  // "aggregator", without the revision

}  // namespace hansa
