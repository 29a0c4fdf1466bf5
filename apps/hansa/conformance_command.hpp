// `hansa plugins check FILE…` (or folders): does a plugin keep what its kind and its traits promise? Each component is looked at in a child
// process. Main thread.
#pragma once
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include <sys/types.h>

#include "conformance/session.hpp"

namespace CLI {
class App;
}

namespace hansa {

class ConformanceCommand {
 public:
  // `plugins` gets the subcommand that people use, `program` the hidden one that runs in the child. Both outlive this.
  ConformanceCommand(CLI::App& plugins, CLI::App& program);
  bool chosen() const;
  // 0: every promise holds. 1: one is broken, or a file is refused. 2: wrong usage.
  int run(std::ostream& out, std::ostream& err) const;

 private:
  int check(std::ostream& out, std::ostream& err) const;
  std::vector<conformance::Row> rows_of(const StrategyRegistry&, const HansaComponent&,
                                        const std::filesystem::path& file, std::ostream& err) const;
  int child() const;
  std::vector<std::string> child_arguments(const std::filesystem::path& file, const std::string& component) const;

  struct Options {
    std::vector<std::filesystem::path> files, plugin_path;
    std::vector<std::string> set, with;
    std::string component, only;
    std::filesystem::path checkpoint;
    std::uint64_t seed = 1;
    double limit = 120;
    bool json = false;
  } options_;
  struct ChildOptions {
    std::size_t first = 0;
    std::filesystem::path report, scratch;
    pid_t parent = 0;
  } child_options_;
  CLI::App* command_;
  CLI::App* child_command_;
};

}  // namespace hansa
