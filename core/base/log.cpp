#include "base/log.hpp"

#include <unistd.h>

#include <fmt/format.h>

namespace hansa {

Log::Log(LogLevel least, std::string_view prefix) : least_(least), prefix_(prefix) {}

void Log::write(LogLevel level, std::string_view message) const {
  if (level < least_) return;
  static constexpr std::string_view kNames[] = {"debug: ", "", "warning: ", "error: "};
  const auto line = fmt::format("{}{}{}\n", prefix_, kNames[static_cast<int>(level)], message);
  // One write call: lines of several processes do not mix. A closed stderr is no reason to stop.
  [[maybe_unused]] const auto wrote = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace hansa
