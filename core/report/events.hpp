// events.jsonl: what happened in a run, one JSON object per line: {"time": "2026-01-02T03:04:05.678Z", "event": "…", …}.
// For machines and for people with jq; lines for people go through base/log.hpp. Any thread. Fails as LineFile does.
#pragma once
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "report/line_file.hpp"

namespace hansa {

class EventValue {  // what a field may hold; views must live until the call returns
 public:
  EventValue(bool value) : held_(value) {}
  EventValue(std::signed_integral auto value) : held_(static_cast<std::int64_t>(value)) {}
  EventValue(std::unsigned_integral auto value) : held_(static_cast<std::uint64_t>(value)) {}
  EventValue(double value) : held_(value) {}  // NaN and infinities are written as strings
  EventValue(std::string_view value) : held_(value) {}
  EventValue(const std::string& value) : held_(std::string_view(value)) {}
  EventValue(const char* value) : held_(std::string_view(value)) {}
  const auto& held() const { return held_; }

 private:
  std::variant<bool, std::int64_t, std::uint64_t, double, std::string_view> held_;
};
using EventFields = std::vector<std::pair<std::string_view, EventValue>>;

class EventLog {
 public:
  EventLog(std::filesystem::path path, NodeDetail detail) : file_(std::move(path)), detail_(detail) {}
  void append(std::string_view event, const EventFields& fields = {});  // about the run
  void append_node(std::string_view event, std::string_view node,
                   const EventFields& fields = {});  // about one node; may be withheld
  std::uint64_t offset() const { return file_.offset(); }
  void truncate_to(std::uint64_t offset) { file_.truncate_to(offset); }

 private:
  void write(std::string_view event, std::string_view node, const EventFields& fields);
  LineFile file_;
  NodeDetail detail_;
};

}  // namespace hansa
