// What the checks of aggregators share: the cohorts that they are tried on, and how two rounds are compared. One thread.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "conformance/cohort.hpp"

namespace hansa::conformance {

using Changes = std::map<std::string, at::Tensor>;  // by tensor name

void needs(const Subject&, std::uint64_t trait, const char* name);  // throws NotConcerned when it is not declared
// From the smallest up, with at least as many clients as this rule takes.
void with_cohorts(const Subject&, const std::function<void(Cohort&)>&);
Changes changes_of(const Subject&, Cohort&);  // of a fresh instance in round 1
// Throws Broken, which begins with `what`.
void same_changes(const Changes& got, const Changes& want, const std::string& what);

std::vector<Check> aggregator_trait_checks();  // part of aggregator_checks()

}  // namespace hansa::conformance
