#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "checkpoint/manifest.hpp"
#include "checkpoint/run_directory.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

void put(const std::filesystem::path& path, const std::string& text) { std::ofstream(path, std::ios::trunc) << text; }

Manifest manifest_of(Epoch epoch) {
  Manifest manifest;
  manifest.run_id = "run-1";
  manifest.epoch = epoch;
  manifest.round = epoch;
  manifest.version = {100 + epoch, {1, epoch}};
  manifest.events_offset = 10 * epoch;
  manifest.notes = {{"base", "sha256:abc"}};
  return manifest;
}

}  // namespace

TEST_CASE("a run directory is used by one process at a time, and the refusal names it") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "run";
  {
    RunDirectory run(path, RunDirectory::Open::Create);
    CHECK_THROWS_WITH(RunDirectory(path, RunDirectory::Open::Create),
                      Catch::Contains("process " + std::to_string(getpid())));
  }
  RunDirectory again(path, RunDirectory::Open::Create);  // free again, and still without a run
}

TEST_CASE("a child of the owner holds no lock, and a dead owner leaves none") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "run";
  const auto child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const RunDirectory run(path, RunDirectory::Open::Create);
    _exit(0);  // as a kill does: nothing is cleaned up
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  RunDirectory run(path, RunDirectory::Open::Create);
}

TEST_CASE("a directory that holds a run is resumed, never started over; an empty one is the other way round") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "run";
  CHECK_THROWS_WITH(RunDirectory(path, RunDirectory::Open::Resume), Catch::Contains("holds no run"));
  { put(RunDirectory(path, RunDirectory::Open::Create).journal(), ""); }
  CHECK_THROWS_WITH(RunDirectory(path, RunDirectory::Open::Create), Catch::Contains("holds a run already"));
  RunDirectory run(path, RunDirectory::Open::Resume);
  put(dir.path() / "file", "");
  CHECK_THROWS_WITH(RunDirectory(dir.path() / "file", RunDirectory::Open::Create), Catch::Contains("is a file"));
}

TEST_CASE("keys of a run are random, private and the same after a restart") {
  TemporaryDirectory dir;
  std::string tokens;
  {
    RunDirectory run(dir.path(), RunDirectory::Open::Create);
    tokens = run.secret("tokens");
    CHECK(tokens.size() == 32);
    CHECK(run.secret("sampling") != tokens);
  }
  RunDirectory run(dir.path(), RunDirectory::Open::Create);
  CHECK(run.secret("tokens") == tokens);
  struct stat status {};
  REQUIRE(stat((dir.path() / "secrets" / "tokens").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  put(dir.path() / "secrets" / "tokens", "short");
  CHECK_THROWS_WITH(run.secret("tokens"), Catch::Contains("must hold 32 bytes"));
}

TEST_CASE("the newest versions stay, older ones, unreleased ones and leftovers go") {
  TemporaryDirectory dir;
  RunDirectory run(dir.path(), RunDirectory::Open::Create);
  for (Epoch epoch = 0; epoch <= 5; ++epoch) {
    put(run.version(epoch), "v");
    put(run.state(epoch), "s");
  }
  CHECK(run.version(12).filename() == "epoch-000012.hansa");
  put(run.version(4).string() + ".tmp123", "half");
  put(dir.path() / "versions" / "notes.txt", "a person's");
  run.keep_versions(4, 2);
  CHECK(run.versions() == std::vector<Epoch>{3, 4});
  CHECK(std::filesystem::exists(run.state(3)));
  CHECK_FALSE(std::filesystem::exists(run.state(2)));
  CHECK_FALSE(std::filesystem::exists(run.version(4).string() + ".tmp123"));
  CHECK(std::filesystem::exists(dir.path() / "versions" / "notes.txt"));
  run.keep_versions(4, 0);  // at least the newest
  CHECK(run.versions() == std::vector<Epoch>{4});
  run.keep_versions(4, 1'000'000);
  CHECK(run.versions() == std::vector<Epoch>{4});
}

TEST_CASE("a manifest comes back as written, and a damaged one gives way to the one before it") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "manifest.json";
  CHECK_FALSE(load_manifest(path));
  write_manifest(path, manifest_of(1), Durability::Process);
  CHECK(load_manifest(path)->manifest == manifest_of(1));
  write_manifest(path, manifest_of(2), Durability::Power);
  CHECK(load_manifest(path)->manifest == manifest_of(2));
  CHECK(load_manifest(path)->note.empty());

  auto text = read_file(path);
  const auto at = text.find("\"epoch\": 2");
  REQUIRE(at != std::string::npos);
  text[at + 9] = '7';
  put(path, text);
  auto loaded = load_manifest(path);
  CHECK(loaded->manifest == manifest_of(1));
  CHECK_THAT(loaded->note, Catch::Contains("does not match its checksum") && Catch::Contains("epoch 1"));

  // A damaged file must not become the previous one.
  write_manifest(path, manifest_of(3), Durability::Process);
  put(path, "{");
  CHECK(load_manifest(path)->manifest == manifest_of(1));
  std::filesystem::remove(path);
  CHECK(load_manifest(path)->manifest == manifest_of(1));
  put(dir.path() / "manifest.previous.json", "");
  CHECK_THROWS_WITH(load_manifest(path), Catch::Contains("no whole checkpoint"));
}

TEST_CASE("files are compared with what the manifest says of them") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "version";
  put(path, std::string(3'000'000, 'x'));
  const auto facts = facts_of(path);
  CHECK(facts.size == 3'000'000);
  CHECK_NOTHROW(require_facts(path, facts));
  put(path, std::string(2'999'999, 'x') + "y");
  CHECK_THROWS_WITH(require_facts(path, facts), Catch::Contains("checksum"));
  put(path, "x");
  CHECK_THROWS_WITH(require_facts(path, facts), Catch::Contains("1 bytes instead of 3000000"));
  CHECK_THROWS_AS(facts_of(dir.path() / "none"), Error);
}
