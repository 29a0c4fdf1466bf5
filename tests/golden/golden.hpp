// Texts compared with files that stand beside their inputs.
#pragma once
#include "test.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace hansa::golden {

class InDirectory {  // file names in messages are relative, so tests run where the files are
 public:
  explicit InDirectory(const std::filesystem::path& path) : before_(std::filesystem::current_path()) {
    std::filesystem::current_path(path);
  }
  ~InDirectory() { std::filesystem::current_path(before_); }
  InDirectory(const InDirectory&) = delete;
  InDirectory& operator=(const InDirectory&) = delete;

 private:
  std::filesystem::path before_;
};

inline std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<std::string> pipelines() {  // *.toml of this folder, by name
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("."))
    if (entry.path().extension() == ".toml") names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<std::string> overrides_in(const std::string& file) {  // lines "# --set a.b=c"
  std::vector<std::string> sets;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.rfind("# --set ", 0) == 0) sets.push_back(line.substr(8));
  return sets;
}

inline void compare(const std::string& file, std::string text) {
  const auto root = std::filesystem::current_path().parent_path().string();  // tests/golden: differs between machines
  for (auto at = text.find(root); at != std::string::npos; at = text.find(root))
    text.replace(at, root.size(), "GOLDEN");
  auto expected = std::filesystem::path(file).replace_extension(".expected");
  if (std::getenv("UPDATE_GOLDEN")) std::ofstream(expected, std::ios::binary) << text;
  CHECK(text == read(expected));
}

}  // namespace hansa::golden
