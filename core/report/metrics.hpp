// metrics.csv in long format: round,node,metric,value. node is empty for the run as a whole. Any thread. Fails as LineFile.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>

#include <hansa/types.hpp>

#include "report/line_file.hpp"

namespace hansa {

class MetricsFile {
 public:
  MetricsFile(std::filesystem::path path, NodeDetail detail);
  void add(Round round, std::string_view metric, double value);                              // about the run
  void add_node(Round round, std::string_view node, std::string_view metric, double value);  // may be withheld
  std::uint64_t offset() const { return file_.offset(); }
  void truncate_to(std::uint64_t offset);

 private:
  void write_header_if_empty();
  LineFile file_;
  NodeDetail detail_;
};

}  // namespace hansa
