// What a run has spent: Rényi-DP accounting of Gaussian releases, with or without amplification by Poisson sampling, and the
// conversion to (epsilon, delta). Epsilon is a pure function of the list of events, so the ledger's journal decides it alone.
//
// Rényi divergence of the sampled Gaussian mechanism: Mironov, Talwar, Zhang, arXiv 1908.10530, sections 3.2 (integer orders)
// and 3.3 (fractional ones). Conversion: Canonne, Kamath, Steinke, arXiv 2004.00010, Proposition 12. Orders as in Google's
// dp_accounting, so that the figures agree. Upper bounds: about 5 to 20 % above the tightest known (PLD) in usual ranges,
// several times where very little is spent.
// Pure functions, any thread. std::invalid_argument with a sentence for what makes no sense.
#pragma once
#include <span>

#include <hansa/dp_event.hpp>

namespace hansa::dp {

struct Spend {
  double epsilon = 0;  // infinity: no guarantee
  double order = 0;    // the Rényi order that gave it; 0 when nothing had to be converted
};

std::span<const double> orders();  // 1.1 to 10.9 by 0.1, 11 to 63, 128, 256, 512, 1024

// Rényi divergence of one release at one order (> 1). Rate 1 is the plain Gaussian, rate 0 costs nothing; noise multiplier 0
// costs infinity.
double renyi_divergence(double noise_multiplier, double sampling_rate, double order);

// All events together; they compose in any order. Events of mechanism "" cost nothing; any other than "gaussian" is refused,
// and so is a rate between 0 and 1 under another adjacency than AddRemove: sampling amplifies only what Poisson drew.
// delta in [0, 1]; at 0 any Gaussian release costs infinity, at 1 nothing does.
Spend spend(std::span<const DpEvent> events, double delta);
double epsilon(std::span<const DpEvent> events, double delta);

// The smallest noise multiplier (to four digits, rounded up) that keeps `steps` releases within `target` epsilon.
double noise_multiplier_for(double target, double sampling_rate, std::uint64_t steps, double delta);

}  // namespace hansa::dp
