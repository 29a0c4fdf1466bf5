#include "report/metrics.hpp"

#include <string>

#include <fmt/format.h>

namespace hansa {
namespace {

constexpr std::string_view kHeader = "round,node,metric,value";

std::string in_quotes(std::string_view cell) {  // as RFC 4180 has it
  if (cell.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(cell);
  std::string text = "\"";
  for (const char c : cell) {
    text += c;
    if (c == '"') text += c;
  }
  return text + '"';
}

}  // namespace

MetricsFile::MetricsFile(std::filesystem::path path, NodeDetail detail) : file_(std::move(path)), detail_(detail) {
  write_header_if_empty();
}

void MetricsFile::write_header_if_empty() {
  if (file_.offset() == 0) file_.append(kHeader);
}

void MetricsFile::add(Round round, std::string_view metric, double value) {
  file_.append(fmt::format("{},,{},{}", round, in_quotes(metric), value));
}

void MetricsFile::add_node(Round round, std::string_view node, std::string_view metric, double value) {
  if (detail_ != NodeDetail::Written) return;
  file_.append(fmt::format("{},{},{},{}", round, in_quotes(node), in_quotes(metric), value));
}

void MetricsFile::truncate_to(std::uint64_t offset) {
  file_.truncate_to(offset);
  write_header_if_empty();
}

}  // namespace hansa
