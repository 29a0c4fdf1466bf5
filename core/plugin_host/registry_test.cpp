#include <hansa/aggregator.hpp>

#include "plugin_host/registry.hpp"

#include <cstdlib>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "plugin_host/describe.hpp"
#include "test.hpp"

using namespace hansa;
namespace fs = std::filesystem;

namespace {

const fs::path kFixtures = HANSA_FIXTURES;

const PluginFile& only_row(const StrategyRegistry& registry) {
  REQUIRE(registry.files().size() == 1);
  return registry.files().front();
}
std::string refusal(const fs::path& path) {
  StrategyRegistry registry;
  registry.scan({path, "test"});
  const auto& row = only_row(registry);
  CHECK(row.outcome == Outcome::Refused);
  CHECK(registry.components().empty());
  return row.why;
}
void put(const fs::path& path, std::string_view text) { write_file_atomically(path, text, Durability::Process); }

}  // namespace

TEST_CASE("A good plugin is loaded and its components are found by kind, name and major version") {
  StrategyRegistry registry;
  registry.scan({kFixtures / "good", "test"});
  const auto& row = only_row(registry);
  CHECK(row.outcome == Outcome::Loaded);
  CHECK(row.why.empty());
  CHECK(row.path.is_absolute());
  CHECK(std::string(row.plugin->id) == "org_hansa_fixture_good");
  CHECK(registry.kinds() == std::vector<std::string>{"aggregator"});
  CHECK(registry.names("aggregator") == std::vector<std::string>{"sum", "wrap"});
  const auto* sum = registry.find("aggregator", "sum");
  REQUIRE(sum);
  CHECK(registry.find("aggregator", "sum@1") == sum);
  CHECK(registry.find("aggregator", "sum@2") == nullptr);
  CHECK(registry.find("aggregator", "sum@") == nullptr);
  CHECK(registry.find("compressor", "sum") == nullptr);
  CHECK(registry.label_of(*sum) == "aggregator sum 1.2.3");
  CHECK(registry.remark("aggregator", "sum@2") == "sum is installed in version 1.2.3");
  CHECK(registry.remark("compressor", "sum") == "sum is a component of kind aggregator");
  CHECK(registry.remark("aggregator", "nobody").empty());
}

TEST_CASE("What is no library at all is refused, and what is not named like one is skipped") {
  TemporaryDirectory directory;
  put(directory.path() / "README.md", "about these plugins");
  put(directory.path() / "hansa_text.so", "not a library");
  put(directory.path() / "hansa_empty.so", "");
  put(directory.path() / "hansa_cut.so", read_file(kFixtures / "good" / "hansa_fixture_good.so").substr(0, 5000));
  fs::create_directory(directory.path() / "hansa_folder.so");  // not looked at
  fs::create_symlink("/dev/null", directory.path() / "hansa_null.so");
  StrategyRegistry registry;
  registry.scan({directory.path(), "test"});
  std::vector<std::string> seen;
  for (const auto& file : registry.files())
    seen.push_back(fmt::format("{} {}: {}", name_of(file.outcome), file.path.filename().string(), file.why));
  CHECK(
      seen ==
      std::vector<std::string>{
          "skipped README.md: its name does not end in .so",
          "refused hansa_cut.so: is a damaged or truncated shared library (its section table points outside the file)",
          "refused hansa_empty.so: is not a shared library (no ELF file)",
          "refused hansa_null.so: is not a regular file",
          "refused hansa_text.so: is not a shared library (no ELF file)",
      });
  CHECK_THAT(registry.remark("aggregator", "text"),
             Catch::EndsWith("hansa_text.so is not a shared library (no ELF file)"));
}

TEST_CASE("A search path that does not exist is a refused row") {
  CHECK(refusal("/nonexistent/plugins") == "does not exist");
}

TEST_CASE("The first of two files with one name wins, and ids are unique") {
  TemporaryDirectory directory;
  const auto good = kFixtures / "good" / "hansa_fixture_good.so";
  fs::copy_file(good, directory.path() / "hansa_fixture_good.so");
  fs::copy_file(good, directory.path() / "hansa_renamed.so");
  StrategyRegistry registry;
  registry.scan({good, "--plugin-path"});
  registry.scan({directory.path(), "HANSA_PLUGIN_PATH"});
  registry.scan({kFixtures / "duplicate", "plugin_path"});
  registry.scan({good, "plugin_path"});
  REQUIRE(registry.files().size() == 5);
  CHECK(registry.files()[1].outcome == Outcome::Skipped);
  CHECK(registry.files()[1].why == good.string() + " was found first, by --plugin-path");
  CHECK(registry.files()[2].outcome == Outcome::Refused);
  CHECK_THAT(registry.files()[2].why,
             Catch::StartsWith("has the plugin id org_hansa_fixture_good, which " + good.string() + " has already"));
  CHECK(registry.files()[3].outcome == Outcome::Refused);
  CHECK_THAT(registry.files()[3].why,
             Catch::StartsWith("offers aggregator 'sum', which " + good.string() + " offers already"));
  CHECK(registry.files()[4].why == "was already looked at (by --plugin-path)");
  CHECK(registry.components().size() == 2);
}

TEST_CASE("Search paths come from the command line, the file and the environment, in that order") {
  setenv("HANSA_PLUGIN_PATH", "/a::/b", 1);
  const std::vector<fs::path> line = {"x"}, file = {"/y"};
  const auto paths = search_paths(line, file);
  unsetenv("HANSA_PLUGIN_PATH");
  REQUIRE(paths.size() >= 4);
  CHECK((paths[0].path == "x" && paths[0].from == "--plugin-path"));
  CHECK((paths[1].path == "/y" && paths[1].from == "plugin_path"));
  CHECK((paths[2].path == "/a" && paths[3].path == "/b" && paths[3].from == "HANSA_PLUGIN_PATH"));
}

TEST_CASE("Listings name every component and every file looked at") {
  StrategyRegistry registry;
  registry.scan({kFixtures / "good", "--plugin-path"});
  registry.scan({kFixtures / "no_entry", "HANSA_PLUGIN_PATH"});
  const auto text = list_text(registry, Rows::Components);
  CHECK_THAT(text, Catch::Contains("aggregator  sum   1.2.3    beta          A sum for tests."));
  CHECK_THAT(text, !Catch::Contains("refused"));
  const auto all = list_text(registry, Rows::ComponentsAndFiles);
  CHECK_THAT(all, Catch::Contains("refused  HANSA_PLUGIN_PATH"));
  CHECK_THAT(all, Catch::Contains("hansa_fixture_no_entry.so: does not export hansa_plugin_entry"));
  const auto json = nlohmann::json::parse(list_json(registry));
  CHECK(json["components"].size() == 2);
  CHECK(json["components"][0]["id"] == "sum");
  CHECK(json["files"][0]["outcome"] == "loaded");
  CHECK(json["files"][0]["sha256"].get<std::string>().size() == 64);
  CHECK(json["files"][0]["built_for"]["contract"] == "1.0");
  CHECK(json["files"][1]["outcome"] == "refused");
  CHECK(json["files"][1]["search_path_from"] == "HANSA_PLUGIN_PATH");
}

TEST_CASE("A component is described with each parameter's type, default, range, unit and doc") {
  StrategyRegistry registry;
  registry.scan({kFixtures / "good", "test"});
  const auto found = find_any(registry, "sum");
  REQUIRE(found.size() == 1);
  CHECK(find_any(registry, "aggregator/sum@1") == found);
  CHECK(find_any(registry, "org_hansa_fixture_good").size() == 2);
  CHECK(find_any(registry, "compressor/sum").empty());
  const auto text = describe_text(registry, *found[0]);
  CHECK_THAT(text,
             Catch::StartsWith(
                 "sum: aggregator/1, version 1.2.3, beta\n    A sum for tests.\n\n    First paragraph.\n\n    Second"));
  CHECK_THAT(text, Catch::Contains(
                       "  floor: number, default 0.0, 0 to 1, in fraction\n      Smallest share of one client.\n"));
  CHECK_THAT(text, Catch::Contains("  mode: nearest | stochastic, default \"nearest\"\n"));
  CHECK_THAT(text, Catch::Contains("  cap: integer, absent by default, more than 0\n"));
  CHECK_THAT(text, Catch::Contains("  targets: list of text, default [\"all\"], each 1 to 20\n"));
  CHECK_THAT(text, Catch::Contains("Traits, with default parameters: OrderFree, Additive\n"));
  CHECK_THAT(describe_text(registry, *registry.find("aggregator", "wrap")),
             Catch::Contains("inner: aggregator component, required\n"));
  const auto json = nlohmann::json::parse(describe_json(registry, *found[0]));
  CHECK(json["parameters"][0]["name"] == "floor");
  CHECK(json["parameters"][0]["maximum"] == 1.0);
  CHECK(json["parameters"][1]["choices"][1] == "stochastic");
  CHECK(json["parameters"][2]["more_than"] == 0.0);
  CHECK(json["default_traits"][1] == "Additive");
}
