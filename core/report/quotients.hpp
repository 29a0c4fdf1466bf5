// What the host makes of an evaluator's sums, of one silo or of several added up: quotients by name. Pure.
#pragma once
#include <map>
#include <string>

#include <hansa/types.hpp>

namespace hansa {

using Sums = std::map<std::string, double>;
void add(Sums& to, const Metrics& sums);

// "nats_per_byte" where bytes of text were counted, else "nats_per_label"; of every sum of another name than "bytes", "tokens"
// and "documents" its mean per counted label: "correct_per_label". Nothing where nothing was counted.
std::map<std::string, double> quotients(const Sums&);

}  // namespace hansa
