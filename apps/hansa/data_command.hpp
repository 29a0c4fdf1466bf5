// `hansa data inspect`, `hansa data partition` and `hansa data render`: what silos hold, how a study deals one collection to
// nodes, how a conversation becomes tokens. Registered onto the program's command line in main; run() when one was chosen.
// Main thread. Throws Error.
#pragma once
#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include "check_command.hpp"

namespace CLI {
class App;
}

namespace hansa {

struct InspectOptions {
  std::vector<std::filesystem::path> paths;  // one pipeline file, or silos
  PipelineRequest pipeline;                  // its overrides
  std::string field;                         // of JSON lines: whose values are labels
  std::string separator = "%";
  std::filesystem::path plot;
  bool json = false;
};
int inspect_data(const InspectOptions&, std::ostream& out, std::ostream& err);

struct PartitionOptions {
  std::filesystem::path input, out;
  std::string by, field, separator = "%";
  double alpha = 0.5, heldout = 0;
  std::uint64_t nodes = 0, shards = 2, least = 1, seed = 1;
  bool json = false;
};
int partition_data(const PartitionOptions&, std::ostream& out);

struct RenderOptions {
  std::filesystem::path model;
  std::string chat_template = "auto";
  bool open = false;  // ends where the assistant is to reply
};
int render_conversations(const RenderOptions&, std::istream& in, std::ostream& out);

class DataCommand {  // lives as long as the App, which writes the options into it
 public:
  explicit DataCommand(CLI::App& program);
  DataCommand(const DataCommand&) = delete;
  DataCommand& operator=(const DataCommand&) = delete;
  bool chosen() const;
  int run(std::istream& in, std::ostream& out, std::ostream& err) const;

 private:
  const CLI::App *inspect_app_ = nullptr, *partition_app_ = nullptr, *render_app_ = nullptr;
  InspectOptions inspect_;
  PartitionOptions partition_;
  RenderOptions render_;
};

}  // namespace hansa
