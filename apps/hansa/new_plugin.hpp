// `hansa plugins new`: a complete project (source, test, README, CMake) from the template of its kind. Templates are real
// projects named my_plugin, in share/hansa/template beside an installed program, in sdk/template of a source tree.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace hansa {

std::filesystem::path template_folder();  // of this program; throws Error when there is none

struct NewPlugin {
  std::string kind, name;
  std::filesystem::path directory;  // of the project; made, or empty so far
};
// The files written, sorted, relative to the directory. Throws Error: unknown kind, a name that is no identifier, a directory
// that holds something.
std::vector<std::filesystem::path> write_plugin(const NewPlugin&, const std::filesystem::path& templates);

}  // namespace hansa
