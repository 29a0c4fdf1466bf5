#include "new_plugin.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "plugin_host/kinds.hpp"
#include "test.hpp"

using namespace hansa;
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("every kind has a template, and a project of it bears the new name everywhere") {
  TemporaryDirectory directory;
  CHECK(known_kinds().size() == 11);
  for (const auto& facts : known_kinds()) {
    const auto kind = std::string(facts.kind);
    const auto at = directory.path() / kind;
    const auto written = write_plugin({kind, "trimmed_mean2", at}, HANSA_TEMPLATES);
    INFO(kind);
    CHECK(written == std::vector<fs::path>{"CMakeLists.txt", "README.md", "trimmed_mean2.cpp", "trimmed_mean2.hpp",
                                           "trimmed_mean2_test.cpp"});
    for (const auto& file : written) {
      const auto text = text_of(at / file);
      CHECK(text.find("my_plugin") == std::string::npos);
      CHECK(text.find("MyPlugin") == std::string::npos);
      CHECK(text.find(file.extension() == ".hpp" ? "TrimmedMean2" : "trimmed_mean2") != std::string::npos);
    }
    CHECK(text_of(at / "trimmed_mean2.hpp").find("hansa/" + std::string(facts.header.substr(6))) != std::string::npos);
    CHECK(text_of(at / "README.md").find(std::string(facts.section) + "\nuse = \"trimmed_mean2\"") !=
          std::string::npos);
  }
}

TEST_CASE("unknown kinds, odd names and folders that hold something are refused") {
  TemporaryDirectory directory;
  const auto write = [&](const std::string& kind, const std::string& name) {
    write_plugin({kind, name, directory.path() / "new"}, HANSA_TEMPLATES);
  };
  CHECK_THROWS_WITH(write("agregator", "x"), "there is no kind 'agregator'; did you mean `aggregator`?");
  CHECK_THROWS_WITH(write("sandwich", "x"), Catch::Contains("the kinds are `model`, `adapter`"));
  for (const auto* name : {"", "2x", "a-b", "A", "../x", "a b"})
    CHECK_THROWS_WITH(write("aggregator", name), Catch::Contains("is no name for a plugin"));
  CHECK_FALSE(fs::exists(directory.path() / "new"));
  write("aggregator", "double");  // a keyword of C++ is no trouble
  CHECK_THROWS_WITH(write("aggregator", "other"), Catch::Contains("holds something already"));
}
