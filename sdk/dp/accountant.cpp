#include "dp/accountant.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace hansa::dp {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double log_add(double a, double b) {  // ln(e^a + e^b)
  if (a < b) std::swap(a, b);
  return b == -kInfinity || a == kInfinity ? a : a + std::log1p(std::exp(b - a));
}

double log_subtract(double a, double b) {  // ln(e^a - e^b) for a > b
  if (b == -kInfinity) return a;
  return a > b ? a + std::log1p(-std::exp(b - a)) : -kInfinity;
}

double log_expm1(double x) { return x > 30 ? x + std::log1p(-std::exp(-x)) : std::log(std::expm1(x)); }

double log_erfc(double x) {
  if (x < 20) return std::log(std::erfc(x));
  // Beyond, erfc underflows: its asymptotic series, whose fourth term is below 1e-8 of the first here.
  const double s = 1 / (2 * x * x);
  return -x * x - std::log(x) - 0.5 * std::log(M_PI) + std::log1p(-s * (1 - 3 * s * (1 - 5 * s)));
}

// ln E[(ratio)^order], integer order. The binomial weights sum to 1 and the terms 0 and 1 have exponent 0, so what exceeds 1
// is the sum of weight * (e^x - 1) from term 2: no digits are lost when the divergence is tiny.
double log_moment_integer(double q, double sigma, int order) {
  double log_excess = -kInfinity, log_binomial = 0;
  for (int k = 1; k <= order; ++k) {
    log_binomial += std::log(static_cast<double>(order - k + 1) / k);
    if (k < 2) continue;
    const double log_weight = log_binomial + k * std::log(q) + (order - k) * std::log1p(-q);
    log_excess = log_add(log_excess, log_weight + log_expm1(k * (k - 1.0) / (2 * sigma * sigma)));
  }
  return log_excess > 30 ? log_add(0, log_excess) : std::log1p(std::exp(log_excess));
}

// The same for a fractional order: two infinite series, split where the two densities cross (z0). Binomial coefficients
// change sign beyond the order, so positive and negative terms are added up apart.
double log_moment_fractional(double q, double sigma, double order) {
  const double z0 = sigma * sigma * std::log(1 / q - 1) + 0.5;
  const double twice_variance = 2 * sigma * sigma, width = std::sqrt(2.0) * sigma;
  double positive = -kInfinity, negative = -kInfinity;
  double log_coefficient = 0;
  bool is_positive = true;
  for (int k = 0; k < 1'000'000; ++k) {
    const double j = order - k;
    const double left = log_coefficient + k * std::log(q) + j * std::log1p(-q) + (k * (k - 1.0)) / twice_variance +
                        std::log(0.5) + log_erfc((k - z0) / width);
    const double right = log_coefficient + j * std::log(q) + k * std::log1p(-q) + (j * (j - 1.0)) / twice_variance +
                         std::log(0.5) + log_erfc((z0 - j) / width);
    auto& sum = is_positive ? positive : negative;
    sum = log_add(sum, log_add(left, right));
    if (std::isnan(sum) || sum == kInfinity) return kInfinity;
    if (k > order && std::max(left, right) < -30) return log_subtract(positive, negative);
    log_coefficient += std::log(std::abs(j) / (k + 1));
    if (j < 0) is_positive = !is_positive;
  }
  return kInfinity;  // did not converge: claim nothing
}

void require(bool holds, const char* otherwise) {
  if (!holds) throw std::invalid_argument(otherwise);
}

void require_counted(const DpEvent& event) {
  if (event.mechanism != "gaussian")
    throw std::invalid_argument("privacy accounting: mechanism '" + event.mechanism +
                                "' is unknown; only 'gaussian' is counted");
  require(event.noise_multiplier >= 0 && std::isfinite(event.noise_multiplier),
          "privacy accounting: the noise multiplier must be a number of at least 0");
  require(event.sampling_rate >= 0 && event.sampling_rate <= 1,
          "privacy accounting: the sampling rate must be between 0 and 1");
  require(event.sampling_rate == 1 || event.sampling_rate == 0 || event.adjacency == Adjacency::AddRemove,
          "privacy accounting: sampling amplifies only under add/remove adjacency with Poisson sampling; use sampling "
          "rate 1");
}

double epsilon_at(double divergence, double order, double delta) {
  // delta bounds the total variation, which the divergence bounds in turn: then epsilon 0 holds (as in dp_accounting).
  if (delta * delta + std::expm1(-divergence) > 0) return 0;
  if (delta == 0) return kInfinity;
  return std::max(0.0, divergence + std::log1p(-1 / order) - std::log(delta * order) / (order - 1));
}

}  // namespace

std::span<const double> orders() {
  static const std::vector<double> all = [] {
    std::vector<double> made;
    for (int tenths = 1; tenths < 100; ++tenths) made.push_back(1 + tenths / 10.0);
    for (int order = 11; order < 64; ++order) made.push_back(order);
    for (int order : {128, 256, 512, 1024}) made.push_back(order);
    return made;
  }();
  return all;
}

double renyi_divergence(double sigma, double q, double order) {
  require(order > 1 && std::isfinite(order), "privacy accounting: a Rényi order must be above 1");
  require_counted({"gaussian", sigma, q});
  if (q == 0) return 0;
  if (sigma == 0) return kInfinity;
  if (q == 1) return order / (2 * sigma * sigma);
  const bool integer = order == std::floor(order) && order < 1e6;
  const double log_moment =
      integer ? log_moment_integer(q, sigma, static_cast<int>(order)) : log_moment_fractional(q, sigma, order);
  return std::isnan(log_moment) ? kInfinity : std::max(0.0, log_moment) / (order - 1);
}

Spend spend(std::span<const DpEvent> events, double delta) {
  require(delta >= 0 && delta <= 1, "privacy accounting: delta must be between 0 and 1");
  std::map<std::pair<double, double>, double> releases;  // alike ones together: a run repeats one event
  for (const auto& event : events) {
    if (event.mechanism.empty()) continue;
    require_counted(event);
    if (event.count > 0 && event.sampling_rate > 0)
      releases[{event.noise_multiplier, event.sampling_rate}] += static_cast<double>(event.count);
  }
  if (releases.empty()) return {};
  Spend best{kInfinity, 0};
  for (double order : orders()) {
    double divergence = 0;
    for (const auto& [event, count] : releases)
      divergence += count * renyi_divergence(event.first, event.second, order);
    const double epsilon = epsilon_at(divergence, order, delta);
    if (epsilon < best.epsilon) best = {epsilon, order};
  }
  return best;
}

double epsilon(std::span<const DpEvent> events, double delta) { return spend(events, delta).epsilon; }

double noise_multiplier_for(double target, double sampling_rate, std::uint64_t steps, double delta) {
  require(target > 0 && std::isfinite(target), "privacy accounting: the epsilon to reach must be above 0");
  require(delta > 0 && delta < 1, "privacy accounting: delta must be above 0 and below 1 to find a noise multiplier");
  const auto spent = [&](double sigma) {
    const DpEvent event{"gaussian", sigma, sampling_rate, steps};
    return epsilon({&event, 1}, delta);
  };
  if (spent(0) <= target) return 0;
  double low = 0, high = 1;
  for (; spent(high) > target; high *= 2) {
    low = high;
    require(high < 1e9, "privacy accounting: no noise multiplier up to 1e9 keeps within this epsilon");
  }
  while (high - low > 5e-5 * high) {
    const double middle = (low + high) / 2;
    (spent(middle) > target ? low : high) = middle;
  }
  return high;
}

}  // namespace hansa::dp
