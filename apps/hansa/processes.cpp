#include "processes.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

extern char** environ;

namespace hansa {
namespace {

int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

ChildProcess::ChildProcess(std::vector<std::string> arguments, const std::filesystem::path& log) {
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (!log.empty()) {
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  }
  const int failed = posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed) throw Error(fmt::format("cannot start {}: {}", arguments[0], std::strerror(failed)));
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0 || status_) return;
  terminate();
  for (int i = 0; i < 500 && !poll(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (poll()) return;
  kill(pid_, SIGKILL);
  wait();
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), status_(other.status_) {}
ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(status_, other.status_);
  return *this;
}

std::optional<int> ChildProcess::poll() {
  if (status_ || pid_ < 0) return status_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) status_ = code_of(status);
  return status_;
}

int ChildProcess::wait() {
  int status = 0;
  while (!status_) {
    if (waitpid(pid_, &status, 0) == pid_)
      status_ = code_of(status);
    else if (errno != EINTR)
      throw Error(fmt::format("cannot wait for process {}: {}", pid_, std::strerror(errno)));
  }
  return *status_;
}

void ChildProcess::terminate() {
  if (pid_ >= 0 && !status_) kill(pid_, SIGTERM);
}

std::filesystem::path this_program() { return std::filesystem::read_symlink("/proc/self/exe"); }

std::vector<std::string> die_with_this_process() { return {"--die-with-parent", std::to_string(getpid())}; }

void die_with_parent(int signal, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, signal);
  if (getppid() != parent) raise(signal);
}

}  // namespace hansa
