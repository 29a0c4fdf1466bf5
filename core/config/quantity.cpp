#include "config/quantity.hpp"

#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

namespace hansa::config {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr std::array kBytes{Unit{"B", 1},        Unit{"KiB", 0x1p10}, Unit{"MiB", 0x1p20}, Unit{"GiB", 0x1p30},
                            Unit{"TiB", 0x1p40}, Unit{"kB", 1e3},     Unit{"KB", 1e3},     Unit{"MB", 1e6},
                            Unit{"GB", 1e9},     Unit{"TB", 1e12}};
constexpr std::array kTimes{Unit{"ms", 1e-3}, Unit{"s", 1},    Unit{"m", 60},
                            Unit{"min", 60},  Unit{"h", 3600}, Unit{"d", 86400}};

void skip_spaces(std::string_view& text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
}

// One number and the letters after it, taken off the front.
bool take(std::string_view& text, double& number, std::string_view& unit) {
  skip_spaces(text);
  if (text.empty() || !((text[0] >= '0' && text[0] <= '9') || text[0] == '.')) return false;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (code != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  skip_spaces(text);
  std::size_t letters = 0;
  while (letters < text.size() && ((text[letters] | 0x20) >= 'a' && (text[letters] | 0x20) <= 'z')) ++letters;
  unit = text.substr(0, letters);
  text.remove_prefix(letters);
  skip_spaces(text);
  return true;
}

template <std::size_t N>
const Unit* find(const std::array<Unit, N>& units, std::string_view name) {
  for (const auto& unit : units)
    if (unit.name == name) return &unit;
  return nullptr;
}

}  // namespace

Result<std::int64_t> parse_bytes(std::string_view text) {
  using R = Result<std::int64_t>;
  double number = 0;
  std::string_view unit;
  if (!take(text, number, unit) || !text.empty())
    return R::failure("is no size: write 512, \"64KiB\", \"64MiB\" or \"1.5GB\"");
  const auto* known = unit.empty() ? &kBytes[0] : find(kBytes, unit);
  if (!known) return R::failure(fmt::format("has the unit `{}`: use B, KiB, MiB, GiB, TiB, kB, MB, GB or TB", unit));
  const auto bytes = number * known->factor;
  if (bytes >= 0x1p63) return R::failure("is more than 8 EiB");
  if (bytes != std::floor(bytes)) return R::failure("is no whole number of bytes");
  return static_cast<std::int64_t>(bytes);
}

Result<double> parse_duration(std::string_view text) {
  using R = Result<double>;
  const std::string_view whole = text;
  double seconds = 0;
  do {
    double number = 0;
    std::string_view unit;
    if (!take(text, number, unit)) return R::failure("is no duration: write \"200ms\", \"1.5s\", \"10m\" or \"1h30m\"");
    const bool alone = unit.empty() && text.empty() && seconds == 0 && !whole.empty();
    const auto* known = alone ? &kTimes[1] : find(kTimes, unit);
    if (!known) return R::failure(fmt::format("has the unit `{}`: use ms, s, m, h or d", unit));
    seconds += number * known->factor;
  } while (!text.empty());
  return seconds;
}

std::string bytes_text(double bytes) {
  constexpr std::array<const char*, 5> kNames{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kNames.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 || bytes >= 100 ? fmt::format("{:.0f} {}", bytes, kNames[unit])
                                   : fmt::format("{:.1f} {}", bytes, kNames[unit]);
}

std::string exact_bytes_text(std::int64_t bytes) {
  for (const auto& [name, shift] : {std::pair{"GiB", 30}, std::pair{"MiB", 20}, std::pair{"KiB", 10}})
    if (bytes > 0 && bytes % (std::int64_t(1) << shift) == 0) return fmt::format("{}{}", bytes >> shift, name);
  return fmt::format("{}", bytes);
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  auto text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace hansa::config
