#include "plugins_command.hpp"

#include <sstream>

#include <CLI/CLI.hpp>

#include "test.hpp"

using namespace hansa;

namespace {

struct Ran {
  int code;
  std::string out, err;
};
Ran run(std::string line, std::vector<std::string> paths) {
  CLI::App app;
  PluginsOptions options;
  add_plugins_command(app, options);
  app.parse(std::move(line));
  StrategyRegistry registry;
  for (const auto& path : paths) registry.scan({path, "--plugin-path"});
  std::ostringstream out, err;
  const int code = run_plugins(options, registry, out, err);
  return {code, out.str(), err.str()};
}
const std::string kGood = HANSA_FIXTURES "/good", kBad = HANSA_FIXTURES "/no_entry";

}  // namespace

TEST_CASE("plugins list prints the components and fails when a file was refused") {
  const auto fine = run("plugins list", {kGood});
  CHECK(fine.code == 0);
  CHECK_THAT(fine.out, Catch::Contains("aggregator  sum"));
  CHECK(fine.err.empty());
  const auto refused = run("plugins list", {kGood, kBad});
  CHECK(refused.code == 1);
  CHECK_THAT(refused.out, Catch::Contains("aggregator  sum"));
  CHECK(refused.err == "one file was refused; `hansa plugins list --all` says why\n");
  CHECK_THAT(run("plugins list --all", {kGood, kBad}).out, Catch::Contains("does not export hansa_plugin_entry"));
  CHECK_THAT(run("plugins list --json", {kGood}).out, Catch::StartsWith("{\n  \"components\": ["));
}

TEST_CASE("plugins describe prints one component, or near names") {
  const auto fine = run("plugins describe sum", {kGood});
  CHECK(fine.code == 0);
  CHECK_THAT(fine.out, Catch::StartsWith("sum: aggregator/1"));
  const auto near = run("plugins describe sun", {kGood});
  CHECK(near.code == 1);
  CHECK(near.out.empty());
  CHECK_THAT(near.err, Catch::Contains("no loaded plugin or component is named 'sun'\nhelp: did you mean `sum`?\n"));
  CHECK_THAT(run("plugins describe fixture_no_entry", {kBad}).err,
             Catch::Contains("does not export hansa_plugin_entry"));
}

TEST_CASE("plugins needs to be told what to do") {
  CHECK_THROWS_AS(run("plugins", {}), CLI::RequiredError);
  CHECK_THROWS_AS(run("plugins describe", {}), CLI::RequiredError);
}

TEST_CASE("plugins kinds says what each decides, where it is declared and what is here") {
  const auto text = run("plugins kinds", {kGood});
  CHECK(text.code == 0);
  CHECK_THAT(text.out, Catch::Contains("aggregator        how the updates of a cohort become one change\n"
                                       "                  hansa/aggregator.hpp, [aggregator]\n"
                                       "                  here: sum, wrap\n"));
  CHECK_THAT(text.out, Catch::Contains("hansa/selection.hpp, [selector]\n                  here: none\n"));
  const auto json = run("plugins kinds --json", {kGood}).out;
  CHECK_THAT(json, Catch::StartsWith("[\n") && Catch::Contains("\"interface\": \"aggregator/1\"") &&
                       Catch::Contains("\"section\": \"[[codec]]\""));
}

TEST_CASE("plugins new writes a project and says how to build it, or why not") {
  TemporaryDirectory directory;
  const auto folder = (directory.path() / "mine").string();
  const auto fine = run("plugins new server_optimizer sign_step --dir " + folder, {});
  CHECK(fine.code == 0);
  CHECK_THAT(fine.out, Catch::Contains(folder + "/sign_step.cpp\n") && Catch::Contains("cmake -S " + folder));
  CHECK(std::filesystem::exists(folder + "/sign_step_test.cpp"));
  const auto again = run("plugins new server_optimizer sign_step --dir " + folder, {});
  CHECK(again.code == 1);
  CHECK_THAT(again.err, Catch::Contains("holds something already"));
  CHECK_THROWS_AS(run("plugins new server_optimizer", {}), CLI::RequiredError);
}
