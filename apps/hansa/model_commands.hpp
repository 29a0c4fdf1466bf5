// Commands about models rather than runs: generate, eval, inspect. Each opens a checkpoint by what its config.json
// says, and an adapter by what its directory says: no pipeline is needed. Registered onto the command line in main.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace hansa {

class ModelCommands {  // lives as long as the App, which writes the options into it
 public:
  explicit ModelCommands(CLI::App& program);
  ~ModelCommands();
  ModelCommands(const ModelCommands&) = delete;
  ModelCommands& operator=(const ModelCommands&) = delete;
  bool chosen() const;
  int run() const;

 private:
  struct Options;
  std::unique_ptr<Options> options_;
};

}  // namespace hansa
