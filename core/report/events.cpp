#include "report/events.hpp"

#include <chrono>
#include <cmath>
#include <ctime>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace hansa {
namespace {

std::string time_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec, ms % 1000);
}

nlohmann::ordered_json to_json(double value) {
  if (std::isfinite(value)) return value;
  return fmt::format("{}", value);  // "nan", "inf", "-inf": JSON has no such numbers
}
template <class T>
nlohmann::ordered_json to_json(const T& value) {
  return value;
}

}  // namespace

void EventLog::append(std::string_view event, const EventFields& fields) { write(event, {}, fields); }

void EventLog::append_node(std::string_view event, std::string_view node, const EventFields& fields) {
  if (detail_ == NodeDetail::Written) write(event, node, fields);
}

void EventLog::write(std::string_view event, std::string_view node, const EventFields& fields) {
  nlohmann::ordered_json line{{"time", time_now()}, {"event", event}};
  if (!node.empty()) line["node"] = node;
  for (const auto& [name, value] : fields) {
    line[std::string(name)] = std::visit([](const auto& held) { return to_json(held); }, value.held());
  }
  file_.append(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace hansa
