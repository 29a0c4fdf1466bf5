// `hansa check` on a passing and a failing pipeline for each static rule, with the real plugins: rules/NN_pass.toml breaks no
// rule, NN_fail.toml breaks rule NN and says what its .expected holds. UPDATE_GOLDEN=1 in the environment rewrites those.
#include "check_command.hpp"
#include "golden.hpp"

#include <sstream>

using namespace hansa;

namespace {

CheckOptions options_for(const std::string& file) {
  CheckOptions options;
  options.pipeline = {file, {}, {HANSA_PLUGINS, HANSA_MEDIAN, HANSA_INTEGERS}};
  return options;
}

}  // namespace

TEST_CASE("each static rule lets its passing pipeline pass and explains its failing one") {
  const golden::InDirectory here(HANSA_GOLDEN "/rules");
  for (const auto& file : golden::pipelines()) {
    std::ostringstream out;
    const auto code = check_command(options_for(file), out);
    INFO(file);
    golden::compare(file, out.str() + "exit " + std::to_string(code) + "\n");
    const auto mark = "[rule " + std::to_string(std::stoi(file.substr(0, 2))) + "]";
    const bool broken = out.str().find(mark) != std::string::npos;
    CHECK(broken == (file.find("fail") != std::string::npos));
    if (file.find("pass") != std::string::npos) CHECK(code == 0);
  }
}

TEST_CASE("check --explain says where each value comes from and what the run needs") {
  const golden::InDirectory here(HANSA_GOLDEN "/rules");
  auto options = options_for("13_fail.toml");
  options.explain = true;
  options.pipeline.set = {"run.rounds=5", "codec.0.use=int8", "codec.1.use=zstd"};
  std::ostringstream out;
  CHECK(check_command(options, out) == 0);
  const auto text = out.str();
  INFO(text);
  CHECK(text.find("# --set run.rounds=5") != std::string::npos);
  CHECK(text.find("# parts/base.toml:") != std::string::npos);
  CHECK(text.find("# default") != std::string::npos);
  CHECK(text.find("up, after zstd") != std::string::npos);
  CHECK(text.find("coordinator                    memory") != std::string::npos);

  options.json = true;
  std::ostringstream json;
  CHECK(check_command(options, json) == 0);
  CHECK(json.str().find("\"coordinator_disk_bytes\"") != std::string::npos);
}

TEST_CASE("a checkpoint that the model refuses is a diagnostic at its path") {
  const golden::InDirectory here(HANSA_GOLDEN "/rules");
  auto options = options_for("13_pass.toml");
  options.pipeline.set = {"model.path=../diagnostics/base"};
  std::ostringstream out;
  CHECK(check_command(options, out) == 1);
  INFO(out.str());
  CHECK(out.str().find("--set model.path=../diagnostics/base: error: ") == 0);
  CHECK(out.str().find("hidden_size") != std::string::npos);
}
