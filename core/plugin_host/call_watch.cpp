#include "plugin_host/call_watch.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>

namespace hansa {
namespace {

// A signal handler is given nothing but a number, so what it needs stands in the thread that crashed.
thread_local const CallScope* t_current = nullptr;

std::string tail_of(const CallPlace& place) {
  auto text = fmt::format(" in {}", place.doing);
  if (place.round) text += fmt::format(", round {}", *place.round);
  if (place.node) text += fmt::format(", node {:016x}", *place.node);
  if (!place.tensor.empty()) text += fmt::format(", tensor {}", place.tensor);
  return text;
}

// Only calls that are allowed in a signal handler.
void put(std::string_view text) {
  while (!text.empty()) {
    const auto wrote = write(STDERR_FILENO, text.data(), text.size());
    if (wrote <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}
void put_number(std::uint64_t number) {
  std::array<char, 24> digits;
  auto at = digits.size();
  do digits[--at] = static_cast<char>('0' + number % 10);
  while ((number /= 10) != 0);
  put({digits.data() + at, digits.size() - at});
}
void put_hex(std::uint64_t number) {
  std::array<char, 16> digits;
  for (auto at = digits.size(); at-- > 0; number >>= 4) digits[at] = "0123456789abcdef"[number & 15];
  put({digits.data(), digits.size()});
}
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitised = true;
#else
constexpr bool kSanitised = false;
#endif
std::string_view name_of_signal(int number) {
  switch (number) {
    case SIGSEGV: return "a bad memory access";
    case SIGBUS: return "a bad memory access (bus error)";
    case SIGFPE: return "an arithmetic fault";
    case SIGILL: return "an illegal instruction";
    default: return "an abort";
  }
}

}  // namespace

std::string sentence_of(std::string_view label, const CallPlace& place) { return std::string(label) + tail_of(place); }

CallWatch::CallWatch(Limits limits)
    : limits_(limits), thread_([this](std::stop_token stop) {
        const auto step = std::chrono::duration<double>(std::clamp(limits_.seconds / 10, 0.01, 1.0));
        std::unique_lock lock(mutex_);
        while (!stop.stop_requested()) {
          changed_.wait_for(lock, stop, step, [] { return false; });
          look();
        }
      }) {}

CallWatch::~CallWatch() {
  thread_.request_stop();
  changed_.notify_all();
}

CallWatch::Entry CallWatch::enter(const std::string& label, const CallPlace& place) {
  const std::lock_guard lock(mutex_);
  return calls_.insert(calls_.end(), {&label, &place, Clock::now(), false});
}

void CallWatch::leave(Entry entry) {
  const std::lock_guard lock(mutex_);
  if (entry->late) --late_;
  calls_.erase(entry);
}

bool CallWatch::late(std::string_view label) const {
  if (late_.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(mutex_);
  return std::any_of(calls_.begin(), calls_.end(), [&](const Call& call) { return call.late && *call.label == label; });
}

void CallWatch::progressed() {
  if (limits_.since != Limits::Since::Progress) return;
  const std::lock_guard lock(mutex_);
  for (auto& call : calls_)
    if (!call.late) call.since = Clock::now();
}

void CallWatch::look() {
  const auto now = Clock::now();
  for (auto& call : calls_) {
    const double seconds = std::chrono::duration<double>(now - call.since).count();
    if (seconds > limits_.seconds && !call.late) {
      call.late = true;
      ++late_;
    }
    if (seconds <= limits_.seconds + limits_.grace_seconds) continue;
    put(fmt::format(
        "error: {} has not come back{} in {:.0f} s, {:g} s beyond its limit; this process ends. Nothing accepted is "
        "lost\n",
        sentence_of(*call.label, *call.place),
        limits_.since == Limits::Since::Progress ? ", nor said that it gets on," : "", seconds, limits_.grace_seconds));
    _exit(kExitHung);
  }
}

CallScope::CallScope(CallWatch* watch, const std::string& label, const CallPlace& place)
    : label_(label), place_(place), outer_(t_current), watch_(watch) {
  if (watch_) entry_ = watch_->enter(label, place);
  t_current = this;
}

CallScope::~CallScope() {
  t_current = outer_;
  if (watch_) watch_->leave(entry_);
}

void name_crashes() {
  if (kSanitised) return;
  struct sigaction action {};
  action.sa_flags = SA_ONSTACK | SA_RESETHAND;
  action.sa_handler = [](int number) {
    put("error: ");
    put(name_of_signal(number));
    if (const auto* call = t_current) {
      put(" in ");
      put(call->label_);
      put(", ");
      put(call->place_.doing);
      if (call->place_.round) {
        put(", round ");
        put_number(*call->place_.round);
      }
      if (call->place_.node) {
        put(", node ");
        put_hex(*call->place_.node);
      }
      if (!call->place_.tensor.empty()) {
        put(", tensor ");
        put(call->place_.tensor);
      }
    } else {
      put(" outside any plugin");
    }
    put("; this process ends. Nothing accepted is lost\n");
    _exit(kExitCrashed);
  };
  // A stack of its own, so that an overflow of the usual one can still be told. For the thread that calls this.
  static std::array<char, 1 << 16> stack;
  stack_t alternative{};
  alternative.ss_sp = stack.data();
  alternative.ss_size = stack.size();
  sigaltstack(&alternative, nullptr);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigaction(number, &action, nullptr);
}

}  // namespace hansa
