// `hansa export`: a run's result, or a checkpoint with an adapter, for others: PEFT's directory, a merged checkpoint, a GGUF file.
// Registered onto the command line in main. Main thread. Throws Error.
#pragma once
#include <memory>

namespace CLI {
class App;
}

namespace hansa {

class ExportCommand {  // lives as long as the App, which writes the options into it
 public:
  explicit ExportCommand(CLI::App& program);
  ~ExportCommand();
  ExportCommand(const ExportCommand&) = delete;
  ExportCommand& operator=(const ExportCommand&) = delete;
  bool chosen() const;
  int run() const;

 private:
  struct Options;
  std::unique_ptr<Options> options_;
};

}  // namespace hansa
