#include "report/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>

namespace hansa {
namespace {

constexpr int kBarCells = 24;
constexpr double kRedrawSeconds = 0.1;
constexpr double kPlainSeconds = 5;   // at most one plain line in this time …
constexpr double kPlainSilence = 30;  // … and one at least in this, if anything moved

void put(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto wrote = write(fd, text.data(), text.size());
    if (wrote <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

std::size_t columns_of(int fd) {
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// The first `count` characters of UTF-8 text, so that a line never wraps: "\r" could not go back over the break.
std::string_view first_characters(std::string_view text, std::size_t count) {
  std::size_t at = 0;
  while (at < text.size()) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80 && count-- == 0) return text.substr(0, at);
    ++at;
  }
  return text;
}

}  // namespace

Output output_of(int fd) {
  const char* term = std::getenv("TERM");
  return isatty(fd) == 1 && term && std::string_view(term) != "dumb" ? Output::Terminal : Output::Plain;
}

std::string bar_text(double fraction, int cells) {
  const int full = static_cast<int>(std::floor(std::clamp(fraction, 0.0, 1.0) * cells));
  std::string bar;
  for (int i = 0; i < cells; ++i) bar += i < full ? "█" : "░";
  return bar;
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  const auto whole = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

ProgressBar::ProgressBar(const Clock& clock, std::string title, std::uint64_t total, std::string unit, int fd,
                         Output output)
    : clock_(clock),
      title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      fd_(fd),
      output_(output),
      began_(clock.now()) {
  if (output_ == Output::Plain)
    put(fd_, total_ > 0 ? fmt::format("{}: {} {}\n", title_, total_, unit_) : title_ + "\n");
  said_ = began_;
}

ProgressBar::~ProgressBar() {
  if (live_) put(fd_, "\n");
}

void ProgressBar::update(std::uint64_t done, std::string_view detail) {
  if (!any_) first_ = done;  // a resumed stage starts in the middle: what others did is no speed of ours
  any_ = true;
  done_ = done;
  const auto now = clock_.now();
  if (output_ == Output::Terminal) {
    if (live_ && now - drawn_ < kRedrawSeconds && done < total_) return;
    drawn_ = now;
    put(fd_, fmt::format("\r{}\x1b[K", first_characters(line(done, detail), columns_of(fd_) - 1)));
    live_ = true;
    return;
  }
  const auto tenth = total_ > 0 ? done * 10 / total_ : 0;
  const bool due = (tenth > said_tenth_ && now - said_ >= kPlainSeconds) || now - said_ >= kPlainSilence;
  if (!due || (total_ > 0 && done >= total_)) return;  // the last one is finish()'s
  said_ = now;
  said_tenth_ = tenth;
  put(fd_, line(done, detail) + "\n");
}

std::string ProgressBar::line(std::uint64_t done, std::string_view detail) const {
  const auto seconds = clock_.now() - began_;
  const auto moved = static_cast<double>(done - std::min(first_, done));
  std::string text = title_;
  if (total_ > 0) {
    const auto fraction = static_cast<double>(done) / static_cast<double>(total_);
    if (output_ == Output::Terminal) text += fmt::format(" {}", bar_text(fraction, kBarCells));
    text += fmt::format(" {}/{} {} {:.0f} %", done, total_, unit_, std::floor(fraction * 100));
  } else {
    text += fmt::format(" {} {}", done, unit_);
  }
  if (!detail.empty()) text += fmt::format(" · {}", detail);
  if (moved > 0 && seconds > 0) {
    const auto rate = moved / seconds;
    text += rate >= 1 ? fmt::format(" · {:.1f}/s", rate) : fmt::format(" · {:.1f} s each", 1 / rate);
    if (total_ > done) text += fmt::format(" · {} left", duration_text(static_cast<double>(total_ - done) / rate));
  }
  return text;
}

void ProgressBar::finish(std::string_view detail) {
  auto text = fmt::format("{}: ", title_);
  if (done_ > 0) text += fmt::format("{} {} ", done_, unit_);
  text += fmt::format("in {}", duration_text(clock_.now() - began_));
  if (!detail.empty()) text += fmt::format(" · {}", detail);
  put(fd_, output_ == Output::Terminal ? fmt::format("\r{}\x1b[K\n", text) : text + "\n");
  live_ = false;
}

}  // namespace hansa
