// `hansa plugins keygen --out NAME`, `hansa plugins sign FILE… --key KEY`, `hansa plugins verify FILE… [--key PUB…] [--json]`.
// Registered below `hansa plugins` in main; run() when one was chosen. No plugin is loaded. Main thread.
#pragma once
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace hansa {

class SignCommands {  // lives as long as the App, which writes the options into it
 public:
  explicit SignCommands(CLI::App& plugins);
  SignCommands(const SignCommands&) = delete;
  SignCommands& operator=(const SignCommands&) = delete;
  bool chosen() const;
  // 0: all done, all as it should be. 1: a key or file cannot be used, or (verify) a file is not what its signature says, or
  // not by one of the keys; the others are treated all the same. Reasons go to `err`; with --json into the object.
  int run(std::ostream& out, std::ostream& err) const;

 private:
  int make_key(std::ostream& out) const;
  int sign(std::ostream& out, std::ostream& err) const;
  int verify(std::ostream& out, std::ostream& err) const;

  const CLI::App* keygen_ = nullptr;
  const CLI::App* sign_ = nullptr;
  const CLI::App* verify_ = nullptr;
  std::vector<std::filesystem::path> files_;  // or folders: every .so in them
  std::filesystem::path out_, key_;
  std::vector<std::string> trusted_;
  bool json_ = false;
};

}  // namespace hansa
