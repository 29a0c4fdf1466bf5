// What authors read when something is wrong, word for word: each diagnostics/*.toml with its .expected. Made-up components,
// so that no plugin's texts matter. UPDATE_GOLDEN=1 in the environment rewrites the expectations.
#include "test.hpp"

#include "config/fake_catalog.hpp"
#include "config/load.hpp"
#include "golden.hpp"

using namespace hansa;

TEST_CASE("each broken pipeline is explained as expected") {
  const golden::InDirectory here(HANSA_GOLDEN "/diagnostics");
  const auto catalog = config::fake_catalog();
  for (const auto& file : golden::pipelines()) {
    const auto loaded = config::load(file, {.set = golden::overrides_in(file), .working_directory = {}}, catalog);
    const auto text = config::render(loaded.diagnostics) + "exit " + std::to_string(loaded.exit_code()) + "\n";
    INFO(file);
    golden::compare(file, text);
    CHECK(loaded.exit_code() == 1);
  }
}
