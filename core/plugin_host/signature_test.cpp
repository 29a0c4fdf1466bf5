#include "plugin_host/signature.hpp"

#include <sys/stat.h>

#include <random>

#include <fmt/format.h>

#include "base/digest.hpp"
#include "plugin_host/signed_fixture.hpp"
#include "plugin_host/trust.hpp"

using namespace hansa;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

const std::string kName = "hansa_x.so", kDigest = sha256_hex("the plugin");

std::string why_not(const Result<PublicKey>& key) { return key ? "" : key.error(); }
std::string why_no_signature(std::string_view text, const std::string& digest = kDigest,
                             const std::string& name = kName) {
  return why_not(signer_of(text, name, digest));
}
unsigned mode_of(const fs::path& path) { return static_cast<unsigned>(fs::status(path).permissions()); }

constexpr const char* kOtherPublic =  // X25519
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEArwNxOrSc55jmtlsvltcSjFL/9hgu9pdZqzxn77WUiWI=\n-----END PUBLIC "
    "KEY-----\n";
constexpr const char* kOtherPrivate =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIBhWOO5ubp2u32xv+qHxx+/Ef8cixVfZBrgXW6Fpn+th\n-----END PRIVATE "
    "KEY-----\n";

}  // namespace

TEST_CASE("A signature names its signer, its file and its digest, and is the same each time") {
  const auto key = PrivateKey::generate();
  const auto text = signature_of(key, kName, kDigest);
  const auto signer = signer_of(text, kName, kDigest);
  REQUIRE(signer);
  CHECK(signer.value() == key.public_half());
  CHECK_THAT(text,
             Catch::StartsWith("hansa-plugin-signature 1\nplugin hansa_x.so\nsha256 " + kDigest + "\nkey ed25519:"));
  CHECK_THAT(text, Contains("\nkey-id " + key.public_half().id() + "\nsignature "));
  CHECK(signature_of(key, kName, kDigest) == text);
  CHECK(signature_of(PrivateKey::generate(), kName, kDigest) != text);
}

TEST_CASE("Every bit of a signature file counts, and so does every byte of its length") {
  const auto text = signature_of(PrivateKey::generate(), kName, kDigest);
  int wrong = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      auto changed = text;
      changed[at] = static_cast<char>(changed[at] ^ 1 << bit);
      wrong += why_no_signature(changed).empty();
    }
    wrong += why_no_signature(text.substr(0, at)).empty();
    wrong += why_no_signature(text.substr(0, at) + text.substr(at + 1)).empty();
    wrong += why_no_signature(text.substr(0, at) + "x" + text.substr(at)).empty();
  }
  CHECK(wrong == 0);
  CHECK(!why_no_signature(text + "\n").empty());
  CHECK(!why_no_signature(text + text).empty());
}

TEST_CASE("Every byte of a signed file counts") {
  const SignedFixture fixture;
  const auto signature = read_file(fixture.signature());
  const auto bytes = fixture.good();
  std::mt19937 random(7);
  int wrong = 0;
  for (int i = 0; i < 600; ++i) {
    auto changed = bytes;
    const auto at = std::uniform_int_distribution<std::size_t>(0, bytes.size() - 1)(random);
    changed[at] = static_cast<char>(changed[at] ^ 1 << random() % 8);
    wrong += static_cast<bool>(vouch(fixture.policy(), "hansa_fixture_good.so", sha256_hex(changed), signature));
  }
  CHECK(wrong == 0);
  for (const auto& changed : {bytes + '\0', bytes.substr(0, bytes.size() - 1), std::string()})
    CHECK(!vouch(fixture.policy(), "hansa_fixture_good.so", sha256_hex(changed), signature));
  CHECK(vouch(fixture.policy(), "hansa_fixture_good.so", sha256_hex(bytes), signature));
}

TEST_CASE("What is wrong with a signature is said") {
  const auto key = PrivateKey::generate();
  const auto text = signature_of(key, kName, kDigest);
  CHECK_THAT(
      why_no_signature(text, sha256_hex("other")),
      Catch::StartsWith(
          "was changed after it was signed, or has the signature of another file: hansa_x.so.sig is for sha256:"));
  CHECK_THAT(why_no_signature(text, kDigest, "hansa_y.so"),
             Catch::StartsWith("was signed as hansa_x.so, and a plugin keeps the name"));
  CHECK(why_no_signature("") == "has a signature file that is none (hansa_x.so.sig); sign it again");
  CHECK_THAT(why_no_signature("hansa-plugin-signature 2\n"), Contains("of a version that this host does not know"));
  CHECK_THAT(why_no_signature(text.substr(0, text.size() / 2)), Contains("damaged or truncated signature"));
  // The parts of two good signatures do not make a third.
  const auto other = signature_of(key, kName, sha256_hex("other"));
  CHECK_THAT(why_no_signature(text.substr(0, text.rfind("signature ")) + other.substr(other.rfind("signature "))),
             Contains("did not make (hansa_x.so.sig): one of the two was changed"));
  CHECK_THROWS_WITH(signature_of(key, "two lines\n.so", kDigest), Contains("cannot be signed"));
}

TEST_CASE("A pair of keys is two files, the private one for its owner only, and replaces none") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "release";
  const auto key = PrivateKey::generate();
  key.write_new(path);
  CHECK(mode_of(path) == 0600);
  CHECK(mode_of(path.string() + ".pub") == 0644);
  const auto half = read_public_key(path.string() + ".pub");
  REQUIRE(half);
  CHECK(half.value() == key.public_half());
  CHECK(half.value().label() == fmt::format("key {} (release.pub)", key.public_half().id()));
  CHECK(parse_public_key(half.value().text()).value() == half.value());
  const auto again = PrivateKey::read(path);
  REQUIRE(again);
  CHECK(again.value().public_half() == half.value());
  CHECK(signature_of(again.value(), kName, kDigest) == signature_of(key, kName, kDigest));

  const auto before = read_file(path);
  CHECK_THROWS_WITH(PrivateKey::generate().write_new(path), Contains("is there already"));
  fs::rename(path, directory.path() / "kept");
  CHECK_THROWS_WITH(PrivateKey::generate().write_new(path), Contains("release.pub is there already"));
  CHECK(!fs::exists(path));
  CHECK(read_file(directory.path() / "kept") == before);
}

TEST_CASE("What is no key, or the wrong one, is refused with a sentence") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "release";
  PrivateKey::generate().write_new(path);
  CHECK_THAT(why_not(read_public_key(path)), Catch::StartsWith("is a private key: it stays with whoever signs"));
  const auto read = [&](const std::string& text) {
    write(directory.path() / "key", text);
    return why_not(read_public_key(directory.path() / "key"));
  };
  CHECK_THAT(read("\x7f"
                  "ELF garbage \xff\n"),
             Catch::StartsWith("is no public key: neither PEM"));
  CHECK_THAT(read(""), Catch::StartsWith("is no public key"));
  const auto whole = read_file(path.string() + ".pub");
  CHECK_THAT(read(whole.substr(0, 60)), Catch::StartsWith("is no public key"));
  CHECK(read(whole) == "");
  CHECK_THAT(read(std::string(20000, 'A')), Contains("larger than 16 KiB"));
  CHECK_THAT(read(kOtherPublic), Contains("of another kind than Ed25519"));
  CHECK_THAT(why_not(read_public_key("ed25519:AAAA")), Contains("44 characters of base64"));
  CHECK_THAT(why_not(read_public_key("/nonexistent/key.pub")), Contains("does not exist"));
  CHECK_THAT(why_not(read_public_key(directory.path())), Contains("is not a regular file"));

  const auto private_key = [&](const std::string& text, unsigned mode) {
    write(directory.path() / "key", text);
    fs::permissions(directory.path() / "key", fs::perms(mode));
    const auto key = PrivateKey::read(directory.path() / "key");
    return key ? "" : key.error();
  };
  CHECK(private_key(read_file(path), 0400).empty());
  CHECK_THAT(private_key(read_file(path), 0640),
             Contains("may be read or written by others (mode 0640): chmod 600 it"));
  CHECK_THAT(private_key(whole, 0600), Contains("is a public key; signing takes the private one"));
  CHECK_THAT(private_key("nothing", 0600), Contains("is no private key (PEM)"));
  CHECK_THAT(private_key(kOtherPrivate, 0600), Contains("of another kind than Ed25519"));
  CHECK_THAT(private_key("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb\n-----END ENCRYPTED PRIVATE KEY-----\n", 0600),
             Contains("is encrypted"));
  CHECK_THROWS_WITH(PrivateKey::read("/nonexistent/key"), Contains("cannot open /nonexistent/key"));
}
