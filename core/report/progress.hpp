// Progress for a person: on a terminal one live line (bar, count, rate, time left), else plain lines, at most one per five
// seconds and ten per cent. One stage at a time; the thread that owns it calls it. Never throws: a lost line is no failure.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.hpp"

namespace hansa {

enum class Output : std::uint8_t { Terminal, Plain };
Output output_of(int fd);  // Terminal: a tty whose TERM is not "dumb"

class ProgressBar {
 public:
  // `total` 0: unknown, so neither bar nor time left.
  ProgressBar(const Clock& clock, std::string title, std::uint64_t total, std::string unit, int fd, Output output);
  ~ProgressBar();  // leaves the cursor on a fresh line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void update(std::uint64_t done, std::string_view detail = {});  // detail: "loss 2.31"
  void finish(std::string_view detail = {});                      // the stage is complete; prints its time

 private:
  std::string line(std::uint64_t done, std::string_view detail) const;

  const Clock& clock_;
  std::string title_, unit_;
  std::uint64_t total_, first_ = 0, said_tenth_ = 0, done_ = 0;
  int fd_;
  Output output_;
  double began_, drawn_ = -1, said_ = -1;
  bool any_ = false, live_ = false;
};

// The pieces, pure: "████░░░░░░", "1:05".
std::string bar_text(double fraction, int cells);
std::string duration_text(double seconds);

}  // namespace hansa
