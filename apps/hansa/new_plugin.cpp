#include "new_plugin.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "base/error.hpp"
#include "config/diagnostic.hpp"
#include "plugin_host/kinds.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kName = "my_plugin", kClass = "MyPlugin";  // as the templates call themselves

void require_kind(const std::string& kind) {
  std::vector<std::string> known;
  for (const auto& facts : known_kinds()) known.emplace_back(facts.kind);
  if (std::find(known.begin(), known.end(), kind) != known.end()) return;
  const auto near = config::near_names(kind, known);
  throw Error(fmt::format("there is no kind '{}'; {}", kind,
                          near.empty() ? fmt::format("the kinds are {}", config::quoted_list(known, "and"))
                                       : fmt::format("did you mean {}?", config::quoted_list(near, "or"))));
}

// A file name, a CMake target and part of identifiers.
void require_name(const std::string& name) {
  constexpr std::size_t kLongest = 48;
  const auto fits = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  const bool good = !name.empty() && name.size() <= kLongest && name[0] >= 'a' && name[0] <= 'z' &&
                    std::all_of(name.begin(), name.end(), fits);
  if (!good)
    throw Error(fmt::format(
        "'{}' is no name for a plugin: lower-case letters, digits and _, a letter first, at most {}", name, kLongest));
}

std::string class_of(const std::string& name) {  // trimmed_mean: TrimmedMean
  std::string made;
  bool upper = true;
  for (char c : name) {
    if (c != '_') made += upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    upper = c == '_';
  }
  return made;
}

std::string renamed(std::string text, const std::string& name) {
  const auto replace = [&](std::string_view from, const std::string& to) {
    for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  };
  replace(kName, name);
  replace(kClass, class_of(name));
  return text;
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error(fmt::format("cannot read {}", path.string()));
  return text.str();
}

}  // namespace

fs::path template_folder() {
  const auto program = fs::read_symlink("/proc/self/exe");
  const auto installed = program.parent_path().parent_path() / "share" / "hansa" / "template";
  if (fs::is_directory(installed)) return installed;
  const fs::path source = HANSA_SOURCE_TEMPLATES;
  if (fs::is_directory(source)) return source;
  throw Error(
      fmt::format("the templates are missing: neither {} nor {} is there", installed.string(), source.string()));
}

std::vector<fs::path> write_plugin(const NewPlugin& wanted, const fs::path& templates) {
  require_kind(wanted.kind);
  require_name(wanted.name);
  const auto from = templates / wanted.kind;
  if (!fs::is_directory(from))
    throw Error(fmt::format("there is no template for kind '{}' in {}", wanted.kind, templates.string()));
  if (fs::exists(wanted.directory) && (!fs::is_directory(wanted.directory) || !fs::is_empty(wanted.directory)))
    throw Error(fmt::format("{} holds something already; name another folder with --dir", wanted.directory.string()));

  std::vector<fs::path> written;
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    if (!entry.is_regular_file()) continue;
    const fs::path name = renamed(fs::relative(entry.path(), from).string(), wanted.name);
    const auto to = wanted.directory / name;
    fs::create_directories(to.parent_path());
    std::ofstream file(to, std::ios::binary);
    file << renamed(read_text(entry.path()), wanted.name);
    if (!file.flush()) throw Error(fmt::format("cannot write {}", to.string()));
    written.push_back(name);
  }
  std::sort(written.begin(), written.end());
  return written;
}

}  // namespace hansa
