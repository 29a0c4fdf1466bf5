// One thread that does things in order: work too slow for the I/O thread. Tasks must not throw. Destruction waits for the
// task in hand and drops the others.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace hansa::coordinator {

class TaskQueue {
 public:
  TaskQueue() : thread_([this](std::stop_token stop) { loop(stop); }) {}
  ~TaskQueue() {
    thread_.request_stop();
    changed_.notify_all();
  }
  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
  }

 private:
  void loop(std::stop_token stop) {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, stop, [this] { return !tasks_.empty(); });
        if (stop.stop_requested()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;
  std::jthread thread_;
};

}  // namespace hansa::coordinator
