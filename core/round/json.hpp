// Internal to round/: numbers that JSON cannot hold. An upload that is refused for a NaN has a NaN norm, and the journal
// must say so and come back the same.
#pragma once
#include <cmath>
#include <limits>
#include <string>

#include <nlohmann/json.hpp>

namespace hansa {

inline nlohmann::json real_to_json(double value) {
  if (std::isfinite(value)) return value;
  if (std::isnan(value)) return "nan";
  return value > 0 ? "inf" : "-inf";
}
inline double real_from_json(const nlohmann::json& json) {
  if (json.is_number()) return json.get<double>();
  const auto text = json.get<std::string>();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  return text == "inf" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
}

}  // namespace hansa
