// Child processes of `hansa run`: started without a shell, told to end when this one does, always reaped. Main thread.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace hansa {

class ChildProcess {
 public:
  // stdout and stderr go to `log` (appended), or are inherited when it is empty. Throws Error when it cannot be started.
  ChildProcess(std::vector<std::string> arguments, const std::filesystem::path& log);
  ~ChildProcess();  // SIGTERM, then SIGKILL after 5 s
  ChildProcess(ChildProcess&&) noexcept;
  ChildProcess& operator=(ChildProcess&&) noexcept;

  std::optional<int> poll();  // exit status once it has ended: the code, or 128 + signal
  int wait();
  void terminate();  // SIGTERM; poll() or wait() follow
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
};

std::filesystem::path this_program();  // /proc/self/exe, resolved
// Child commands that end with their parent have an option --die-with-parent PID. These are its words for a child of this
// process.
std::vector<std::string> die_with_this_process();
// In such a child, first thing: this signal when the parent dies, or at once when it died before it could be asked for.
void die_with_parent(int signal, pid_t parent);

}  // namespace hansa
