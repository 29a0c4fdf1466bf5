// Internal. One thread with a KJ event loop, and a mailbox by which other threads reach it. Everything of Cap'n Proto lives
// and dies on that thread; what crosses over are plain values.
#pragma once
#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/function.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/file.hpp"

namespace hansa::wire {

// Outlives the thread: whoever may want to post keeps one (shared for that reason). Any thread.
class Mailbox {
 public:
  Mailbox();
  // Runs `task` on the loop, in order of posting; false, and never run, once the mailbox is closed.
  bool post(kj::Function<void()> task);

 private:
  friend class IoThread;
  std::vector<kj::Function<void()>> take();
  void close();

  FileDescriptor event_;
  std::mutex mutex_;
  std::vector<kj::Function<void()>> tasks_;  // guarded by mutex_
  bool closed_ = false;                      // guarded by mutex_
};

class IoThread final : private kj::TaskSet::ErrorHandler {
 public:
  explicit IoThread(const char* name);
  // Tasks posted before are run first; then the loop ends. Whatever lives on the loop must be gone by then.
  ~IoThread() noexcept(false);
  void stop();

  const std::shared_ptr<Mailbox>& mailbox() const { return mailbox_; }
  void run(kj::Function<void()> task);  // posts, and waits until it has run; rethrows; not from the I/O thread

  // On the I/O thread only.
  kj::LowLevelAsyncIoProvider& provider() { return *io_->lowLevelProvider; }
  kj::Timer& timer() { return io_->provider->getTimer(); }
  void add_task(kj::Promise<void> promise) { tasks_->add(kj::mv(promise)); }  // failures are logged and forgotten

 private:
  void main(const char* name);
  kj::Promise<void> serve_mailbox(kj::UnixEventPort::FdObserver& observer);
  void taskFailed(kj::Exception&&) override;

  std::shared_ptr<Mailbox> mailbox_;
  kj::AsyncIoContext* io_ = nullptr;                    // of the thread's stack
  kj::TaskSet* tasks_ = nullptr;                        // of the thread's stack
  kj::Own<kj::PromiseFulfiller<void>> stop_requested_;  // on the I/O thread only
  std::thread thread_;
};

std::string describe(const kj::Exception&);  // without file, line and stack

}  // namespace hansa::wire
