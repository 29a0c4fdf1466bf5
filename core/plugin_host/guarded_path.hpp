// A path that nobody but root and this user can bend: every directory on the way, every symbolic link and the file itself
// belong to one of the two and are writable by nobody else. Walked step by step on open descriptors, so that what was
// looked at is what is opened. Any thread; touches nothing.
#pragma once
#include <sys/types.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>

#include "base/file.hpp"

namespace hansa {

struct GuardedFile {
  FileDescriptor file;         // open for reading
  FileDescriptor directory;    // in which it really lies, behind all links (O_PATH)
  std::filesystem::path path;  // its real path
};

// The failure is the end of a sentence about the file. A directory on the way that everybody may write to is let pass when it
// is sticky (/tmp): nobody can take away what lies in it. The file's own directory is not.
Result<GuardedFile> open_guarded(const std::filesystem::path& absolute, uid_t self = geteuid());
// Why a directory or file is not to be trusted, or nothing.
std::optional<std::string> why_unguarded(const std::filesystem::path& absolute, uid_t self = geteuid());

}  // namespace hansa
