#include "plugin_host/guarded_path.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <deque>

#include <fmt/format.h>

namespace hansa {
namespace {

namespace fs = std::filesystem;

constexpr int kMostLinks = 40;  // as the kernel

class Walk {
 public:
  Walk(const fs::path& path, uid_t self) : self_(self) { push(path); }

  // Ends at the last part, with problem() set where something is wrong.
  bool go() {
    if (!restart()) return false;
    while (!rest_.empty()) {
      const auto name = std::move(rest_.front());
      rest_.pop_front();
      if (!step(name)) return false;
    }
    return true;
  }
  bool at_directory() const { return S_ISDIR(status_.st_mode); }
  // A directory with files in it must not take files of others, sticky or not.
  bool closed(const struct stat& directory, const fs::path& path) {
    return !(directory.st_mode & (S_IWGRP | S_IWOTH)) || writable(directory, path);
  }
  bool end_as_directory() { return closed(status_, where_); }
  bool end_as_file() {
    if (!S_ISREG(status_.st_mode)) return fail("is not a regular file");
    if (!closed(parent_status_, where_.parent_path())) return false;
    if (status_.st_mode & (S_IWGRP | S_IWOTH)) return writable(status_, where_);
    // The same file, whatever its name leads to by now.
    file_ = FileDescriptor(open(fmt::format("/proc/self/fd/{}", at_.get()).c_str(), O_RDONLY | O_CLOEXEC));
    return file_ ? true : fail(fmt::format("cannot be opened: {}", std::strerror(errno)));
  }
  std::string problem() && { return std::move(problem_); }
  GuardedFile result() && { return {std::move(file_), std::move(parent_), std::move(where_)}; }

 private:
  bool fail(std::string why) {
    problem_ = std::move(why);
    return false;
  }
  bool writable(const struct stat& status, const fs::path& path) {
    const bool everybody = status.st_mode & S_IWOTH;
    return fail(fmt::format("{}{} may write to (mode {:04o}); take that right away: chmod go-w {}",
                            S_ISDIR(status.st_mode) ? fmt::format("lies in or below {}, which ", path.string())
                                                    : std::string("is a file that "),
                            everybody ? "everybody" : "its group", status.st_mode & 07777, path.string()));
  }

  void push(const fs::path& path) {
    std::deque<std::string> parts;
    for (const auto& part : path.relative_path())
      if (!part.empty() && part != ".") parts.push_back(part.string());
    rest_.insert(rest_.begin(), parts.begin(), parts.end());
  }

  bool restart() {
    where_ = "/";
    at_ = FileDescriptor(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    return look();
  }

  bool step(const std::string& name) {
    if (!at_directory()) return fail(fmt::format("cannot be reached: {} is no directory", where_.string()));
    FileDescriptor next(openat(at_.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next) {
      const auto missing = (where_ / name).string();
      return fail(errno == ENOENT ? fmt::format("cannot be reached: {} does not exist", missing)
                                  : fmt::format("cannot be reached: {}: {}", missing, std::strerror(errno)));
    }
    parent_ = std::move(at_);
    parent_status_ = status_;
    at_ = std::move(next);
    where_ = name == ".." ? where_.parent_path() : where_ / name;
    if (!look()) return false;
    return !S_ISLNK(status_.st_mode) || follow();
  }

  // What is open now: whose it is, and who may write to it.
  bool look() {
    if (!at_ || fstat(at_.get(), &status_) != 0)
      return fail(fmt::format("cannot be reached: {}: {}", where_.string(), std::strerror(errno)));
    if (status_.st_uid != 0 && status_.st_uid != self_)
      return fail(fmt::format(
          "{} belongs to user {}, who is neither root nor the user of this process ({}): chown it, or move "
          "the plugins to a place of your own",
          S_ISREG(status_.st_mode) ? "is a file that" : fmt::format("lies behind {}, which", where_.string()),
          status_.st_uid, self_));
    if (S_ISDIR(status_.st_mode) && (status_.st_mode & (S_IWGRP | S_IWOTH)) && !(status_.st_mode & S_ISVTX))
      return writable(status_, where_);
    return true;
  }

  bool follow() {
    if (++links_ > kMostLinks) return fail("lies behind too many symbolic links");
    std::string target(PATH_MAX, '\0');
    const auto size = readlinkat(at_.get(), "", target.data(), target.size());
    if (size < 0) return fail(fmt::format("cannot be reached: {}: {}", where_.string(), std::strerror(errno)));
    target.resize(static_cast<std::size_t>(size));
    push(target);
    if (fs::path(target).is_absolute()) return restart();
    at_ = std::move(parent_);
    parent_ = FileDescriptor();
    status_ = parent_status_;
    where_ = where_.parent_path();
    return true;
  }

  uid_t self_;
  std::deque<std::string> rest_;
  FileDescriptor at_, parent_, file_;
  struct stat status_ {
  }, parent_status_{};
  fs::path where_;
  int links_ = 0;
  std::string problem_;
};

}  // namespace

Result<GuardedFile> open_guarded(const fs::path& path, uid_t self) {
  Walk walk(path, self);
  if (!walk.go() || !walk.end_as_file()) return Result<GuardedFile>::failure(std::move(walk).problem());
  return std::move(walk).result();
}

std::optional<std::string> why_unguarded(const fs::path& path, uid_t self) {
  Walk walk(path, self);
  if (walk.go() && (walk.at_directory() ? walk.end_as_directory() : walk.end_as_file())) return std::nullopt;
  return std::move(walk).problem();
}

}  // namespace hansa
