#include "peers/launch.hpp"

#include <map>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::peers;
using Catch::Matchers::Contains;

namespace {

std::optional<Launch> launch(const std::map<std::string, std::string>& variables) {
  return launch_from([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}
const std::map<std::string, std::string> kTorchrun{{"RANK", "5"},          {"WORLD_SIZE", "8"},
                                                   {"LOCAL_RANK", "1"},    {"LOCAL_WORLD_SIZE", "4"},
                                                   {"MASTER_ADDR", "one"}, {"MASTER_PORT", "29500"}};
std::map<std::string, std::string> with(std::map<std::string, std::string> variables, const std::string& name,
                                        const std::string& value) {
  variables[name] = value;
  return variables;
}

}  // namespace

TEST_CASE("torchrun's variables say which process this is, and where they meet") {
  const auto found = launch(kTorchrun);
  REQUIRE(found);
  CHECK(found->rank == 5);
  CHECK(found->size == 8);
  CHECK(found->local_rank == 1);
  CHECK(found->local_size == 4);
  CHECK(found->address == "one");
  CHECK(found->port == 29500);
  CHECK_FALSE(found->met_elsewhere);
  CHECK(launch(with(with(kTorchrun, "TORCHELASTIC_USE_AGENT_STORE", "True"), "TORCHELASTIC_RESTART_COUNT", "2"))
            ->attempt == "2");
}

TEST_CASE("one process is nothing special") {
  CHECK_FALSE(launch({}));
  CHECK_FALSE(launch({{"RANK", "0"}, {"WORLD_SIZE", "1"}}));
  CHECK_FALSE(launch({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}));  // in a batch script
}

TEST_CASE("Slurm's variables do where a meeting place is named") {
  const auto found = launch({{"SLURM_PROCID", "3"},
                             {"SLURM_NTASKS", "4"},
                             {"SLURM_LOCALID", "1"},
                             {"MASTER_ADDR", "10.0.0.1"},
                             {"MASTER_PORT", "7000"}});
  REQUIRE(found);
  CHECK(found->rank == 3);
  CHECK(found->size == 4);
  CHECK(found->local_rank == 1);
}

TEST_CASE("what is missing or wrong is named") {
  auto without = kTorchrun;
  without.erase("MASTER_PORT");
  CHECK_THROWS_WITH(launch(without), Contains("MASTER_PORT is not set"));
  CHECK_THROWS_WITH(launch(with(kTorchrun, "RANK", "8")), Contains("RANK is '8'") && Contains("0 to 7"));
  CHECK_THROWS_WITH(launch(with(kTorchrun, "WORLD_SIZE", "two")), Contains("WORLD_SIZE is 'two'"));
  CHECK_THROWS_WITH(launch(with(kTorchrun, "WORLD_SIZE", "0")), Contains("at least one"));
  CHECK_THROWS_WITH(launch(with(kTorchrun, "MASTER_PORT", "70000")), Contains("MASTER_PORT is '70000'"));
}
