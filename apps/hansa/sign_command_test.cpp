#include "sign_command.hpp"

#include <random>
#include <sstream>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

struct Signed {
  int code;
  std::string out, err;
};
Signed sign(const std::string& line) {
  CLI::App app;
  SignCommands commands(app);
  app.parse(line);
  REQUIRE(commands.chosen());
  std::ostringstream out, err;
  const int code = commands.run(out, err);
  return {code, out.str(), err.str()};
}

struct Author {  // with two plugins and a key
  TemporaryDirectory directory;
  Author() {
    fs::create_directory(plugins());
    fs::copy_file(HANSA_FIXTURES "/good/hansa_fixture_good.so", good());
    fs::copy_file(HANSA_FIXTURES "/duplicate/hansa_fixture_duplicate.so", plugins() / "hansa_fixture_duplicate.so");
    CHECK(sign("keygen --out " + key()).code == 0);
  }
  fs::path plugins() const { return directory.path() / "plugins"; }
  fs::path good() const { return plugins() / "hansa_fixture_good.so"; }
  std::string key() const { return (directory.path() / "release").string(); }
};

void flip(const fs::path& path, std::mt19937& random) {
  auto bytes = read_file(path);
  const auto at = std::uniform_int_distribution<std::size_t>(0, bytes.size() - 1)(random);
  bytes[at] = static_cast<char>(bytes[at] ^ 1 << random() % 8);
  write_file_atomically(path, bytes, Durability::Process);
}

}  // namespace

TEST_CASE("keygen writes a pair once, and prints what goes into a pipeline") {
  const TemporaryDirectory directory;
  const auto name = (directory.path() / "mine").string();
  const auto made = sign("keygen --out " + name);
  CHECK(made.code == 0);
  CHECK_THAT(made.out, Contains("mine.pub, key id ") && Contains("require_signed = true") && Contains("\"ed25519:"));
  CHECK(fs::status(name).permissions() == fs::perms(0600));
  const auto again = sign("keygen --out " + name);
  CHECK(again.code == 1);
  CHECK_THAT(again.err, Contains("is there already"));
  CHECK_THAT(sign("keygen --out /nonexistent/mine").err, Contains("cannot make /nonexistent/mine.pub"));
}

TEST_CASE("sign takes files and folders at once, and verify says who signed") {
  const Author author;
  const auto folder = author.plugins().string();
  const auto before = sign("verify " + folder);
  CHECK(before.code == 1);
  CHECK_THAT(before.err, Contains("is not signed (there is no hansa_fixture_good.so.sig beside it); it is sha256:"));

  const auto done = sign("sign " + folder + " --key " + author.key());
  CHECK(done.code == 0);
  CHECK_THAT(done.out, Contains("signed " + folder + "/hansa_fixture_duplicate.so.sig by key ") &&
                           Contains("signed " + folder + "/hansa_fixture_good.so.sig by key "));
  const auto known = sign("verify " + folder + " --key " + author.key() + ".pub");
  CHECK(known.code == 0);
  CHECK_THAT(known.out, Contains("hansa_fixture_good.so: signed by key ") && Contains("(release.pub), sha256:"));
  CHECK_THAT(known.out, !Contains("Anybody can sign"));
  const auto unknown = sign("verify " + folder);
  CHECK(unknown.code == 0);
  CHECK_THAT(unknown.out, Contains("Anybody can sign: --key PUB says"));

  CHECK(sign("keygen --out " + author.key() + "2").code == 0);
  const auto other = sign("verify " + folder + " --key " + author.key() + "2.pub");
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Contains("which is not one of --key"));
  CHECK(sign("verify " + folder + " --key " + author.key() + "2.pub --key " + author.key() + ".pub").code == 0);
  const auto json = nlohmann::json::parse(sign("verify --json " + folder + " --key " + author.key() + ".pub").out);
  REQUIRE(json.size() == 2);
  CHECK(json[1]["fine"] == true);
  CHECK(json[1]["trusted"] == true);
  CHECK(json[1]["signed_by"]["name"] == "release.pub");
  CHECK(json[1]["signed_by"]["key_id"].get<std::string>().size() == 16);
  CHECK(json[1]["digest"].get<std::string>().size() == 71);
}

TEST_CASE("verify fails at a flip of any one bit, in the file or in its signature") {
  const Author author;
  const auto good = author.good().string(), key = author.key() + ".pub";
  REQUIRE(sign("sign " + good + " --key " + author.key()).code == 0);
  const auto bytes = read_file(good), signature = read_file(good + ".sig");
  std::mt19937 random(3);
  int passed = 0;
  for (int i = 0; i < 150; ++i) {
    flip(good, random);
    passed += sign("verify " + good + " --key " + key).code == 0;
    write_file_atomically(good, bytes, Durability::Process);
    flip(good + ".sig", random);
    passed += sign("verify " + good).code == 0;
    write_file_atomically(good + ".sig", signature, Durability::Process);
  }
  CHECK(passed == 0);
  CHECK(sign("verify " + good + " --key " + key).code == 0);
}

TEST_CASE("What cannot be signed or verified is said, and the rest is done all the same") {
  const Author author;
  const auto good = author.good().string();
  write_file_atomically(author.plugins() / "hansa_text.so", "no library", Durability::Process);
  const auto some = sign("sign " + author.plugins().string() + " --key " + author.key());
  CHECK(some.code == 1);
  CHECK_THAT(some.err, Contains("hansa_text.so is not a shared library"));
  CHECK(fs::exists(good + ".sig"));
  CHECK(!fs::exists(author.plugins() / "hansa_text.so.sig"));
  CHECK_THAT(sign("sign " HANSA_FIXTURES "/no_note --key " + author.key()).err, Contains("is no plugin of Hansa"));
  CHECK_THAT(sign("sign " + good + " --key " + author.key() + ".pub").err, Contains("is a public key; signing takes"));
  CHECK_THAT(sign("verify " + good + " --key " + author.key()).err, Contains("is a private key"));
  CHECK_THAT(sign("sign " + author.directory.path().string() + " --key " + author.key()).err,
             Contains("holds no plugin"));
  CHECK_THROWS_AS(sign("sign " + good), CLI::RequiredError);
  CHECK_THROWS_AS(sign("verify /nonexistent.so"), CLI::ValidationError);
}
