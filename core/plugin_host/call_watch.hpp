// What no guard can catch: a plugin that does not come back, and one that crashes. Every guarded call says where it is; a
// crash handler names the call that the thread was in, and a watch ends the process when a call outlasts its limit and the
// grace after it. Either way the process ends with a code of its own, so that whoever started it knows that a resume is safe.
//
// Within the grace Host::cancelled() of that component is true, so a well-behaved plugin ends by itself.
//
// A coordinator's calls are short, and their limit counts from their beginning. A node's may rightly take hours, but say that
// they get on (Host::progress): there the limit counts from the last sign of progress of any component of the process.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/call_place.hpp"

namespace hansa {

inline constexpr int kExitCrashed = 70;  // in a plugin, or outside: the message says which
inline constexpr int kExitHung = 71;     // a plugin did not come back

std::string sentence_of(std::string_view label,
                        const CallPlace&);  // "aggregator krum 0.1.0 in reduce, round 3, tensor x"

class CallWatch {
 public:
  struct Limits {
    double seconds = 600;       // of one call
    double grace_seconds = 30;  // after that
    enum class Since : std::uint8_t { Beginning, Progress } since = Since::Beginning;
  };
  explicit CallWatch(Limits);
  ~CallWatch();
  // Is a call of this component beyond its limit? Any thread; cheap while none is.
  bool late(std::string_view label) const;
  void progressed();  // any thread; who was asked to stop stays asked

 private:
  friend class CallScope;
  using Clock = std::chrono::steady_clock;
  struct Call {
    const std::string* label;
    const CallPlace* place;
    Clock::time_point since;
    bool late = false;
  };
  using Entry = std::list<Call>::iterator;
  Entry enter(const std::string& label, const CallPlace&);
  void leave(Entry);
  void look();

  Limits limits_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::list<Call> calls_;
  std::atomic<int> late_{0};
  std::jthread thread_;  // last: it looks at all of the above
};

// One guarded call, on the stack of the thread that makes it. `watch` may be null; label and place outlive it.
class CallScope {
 public:
  CallScope(CallWatch* watch, const std::string& label, const CallPlace& place);
  ~CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  friend void name_crashes();
  const std::string& label_;
  const CallPlace& place_;
  const CallScope* outer_;
  CallWatch* watch_;
  CallWatch::Entry entry_;
};

// From now on a crash (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) ends the process with kExitCrashed and one line on stderr.
// Once, by main. Does nothing under a sanitiser, whose own report says more.
void name_crashes();

}  // namespace hansa
