// Plain lines for a human on stderr, one write each; events for machines go through report/. Any thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace hansa {

enum class LogLevel : std::uint8_t { Debug, Info, Warning, Error };

class Log {
 public:
  explicit Log(LogLevel least = LogLevel::Info, std::string_view prefix = {});
  void write(LogLevel, std::string_view message) const;
  void info(std::string_view m) const { write(LogLevel::Info, m); }
  void warning(std::string_view m) const { write(LogLevel::Warning, m); }
  void error(std::string_view m) const { write(LogLevel::Error, m); }

 private:
  LogLevel least_;
  std::string prefix_;
};

}  // namespace hansa
