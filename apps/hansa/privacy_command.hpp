// `hansa privacy epsilon` and `hansa privacy noise`: what a number of noised releases costs, and how much noise an epsilon
// needs. Registered onto the program's command line in main; run() when it was chosen. Errors in the numbers are
// std::invalid_argument with a sentence.
#pragma once
#include <cstdint>
#include <iosfwd>

namespace CLI {
class App;
}

namespace hansa {

class PrivacyCommand {  // lives as long as the App, which writes the options into it
 public:
  explicit PrivacyCommand(CLI::App& program);
  PrivacyCommand(const PrivacyCommand&) = delete;
  PrivacyCommand& operator=(const PrivacyCommand&) = delete;
  bool chosen() const;
  int run(std::ostream& out) const;  // prints the value alone, or one JSON object; returns the exit code

 private:
  void run_epsilon(std::ostream&) const;
  void run_noise(std::ostream&) const;
  const CLI::App* epsilon_ = nullptr;
  const CLI::App* noise_ = nullptr;
  double noise_multiplier_ = 0, sampling_rate_ = 1, delta_ = 1e-5, target_ = 0;
  std::uint64_t steps_ = 0;
  bool json_ = false;
};

}  // namespace hansa
