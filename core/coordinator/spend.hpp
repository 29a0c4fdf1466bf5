// What a ledger's events add up to. Pure; any thread. Throws std::invalid_argument for events no accountant knows.
#pragma once
#include <span>

#include "round/ledger.hpp"

namespace hansa::coordinator {

double epsilon_of(std::span<const SpendEvent> spent, double delta);

}  // namespace hansa::coordinator
