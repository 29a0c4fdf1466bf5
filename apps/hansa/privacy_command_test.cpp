#include "privacy_command.hpp"

#include <sstream>
#include <stdexcept>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "test.hpp"

using namespace hansa;

namespace {

std::string run(std::vector<std::string> arguments) {
  CLI::App app;
  PrivacyCommand command(app);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  app.parse(arguments);
  REQUIRE(command.chosen());
  std::ostringstream out;
  const int code = command.run(out);
  CHECK(code == 0);
  return out.str();
}

}  // namespace

TEST_CASE("privacy epsilon prints the value alone") {
  const auto text = run(
      {"privacy", "epsilon", "--noise-multiplier", "1.0", "--sampling-rate", "1", "--steps", "1", "--delta", "1e-5"});
  CHECK(text.find('\n') == text.size() - 1);
  CHECK(std::stod(text) == Approx(4.728507067217623).epsilon(1e-6));
}

TEST_CASE("privacy epsilon --json names what it counted") {
  const auto json = nlohmann::json::parse(run({"privacy", "epsilon", "--noise-multiplier", "1.13", "--sampling-rate",
                                               "0.01", "--steps", "1600", "--delta", "1e-6", "--json"}));
  CHECK(json.at("epsilon").get<double>() == Approx(2.298622551345149).epsilon(1e-3));
  CHECK(json.at("adjacency") == "add or remove one node");
  CHECK(json.at("steps") == 1600);
}

TEST_CASE("privacy epsilon without noise is infinite, null in JSON") {
  CHECK(run({"privacy", "epsilon", "--noise-multiplier", "0", "--sampling-rate", "1", "--steps", "1", "--delta",
             "1e-5"}) == "inf\n");
  CHECK(nlohmann::json::parse(run({"privacy", "epsilon", "--noise-multiplier", "0", "--sampling-rate", "1", "--steps",
                                   "1", "--delta", "1e-5", "--json"}))
            .at("epsilon")
            .is_null());
}

TEST_CASE("privacy noise finds what privacy epsilon confirms") {
  const auto multiplier =
      run({"privacy", "noise", "--epsilon", "8", "--sampling-rate", "0.1", "--steps", "100", "--delta", "1e-5"});
  const auto epsilon =
      std::stod(run({"privacy", "epsilon", "--noise-multiplier", multiplier.substr(0, multiplier.size() - 1),
                     "--sampling-rate", "0.1", "--steps", "100", "--delta", "1e-5"}));
  CHECK(epsilon <= 8);
  CHECK(epsilon > 7.98);
}

TEST_CASE("missing and senseless numbers are refused") {
  CHECK_THROWS_AS(run({"privacy", "epsilon", "--noise-multiplier", "1"}), CLI::ParseError);
  CHECK_THROWS_AS(run({"privacy"}), CLI::ParseError);
  CHECK_THROWS_AS(run({"privacy", "epsilon", "--noise-multiplier", "1", "--sampling-rate", "1", "--steps", "-3",
                       "--delta", "1e-5"}),
                  CLI::ParseError);
  CHECK_THROWS_WITH(
      run({"privacy", "epsilon", "--noise-multiplier", "1", "--sampling-rate", "2", "--steps", "1", "--delta", "1e-5"}),
      Catch::Contains("sampling rate"));
}
