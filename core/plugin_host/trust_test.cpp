#include "plugin_host/trust.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "plugin_host/describe.hpp"
#include "plugin_host/guarded_path.hpp"
#include "plugin_host/signed_fixture.hpp"

using namespace hansa;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kGoodId = "org_hansa_fixture_good";

void overwrite_in_place(const fs::path& path, std::string_view bytes) {
  const auto file = open_file(path, O_WRONLY | O_TRUNC);
  write_all(file.get(), std::as_bytes(std::span(bytes)), path);
}
std::string why_unguarded_file(const fs::path& path, uid_t self = geteuid()) {
  const auto opened = open_guarded(path, self);
  return opened ? "" : opened.error();
}

}  // namespace

TEST_CASE("A signed plugin is loaded from the memory that was verified") {
  const SignedFixture fixture;
  const auto row = fixture.row(fixture.policy());
  CHECK(row.why.empty());
  REQUIRE(row.outcome == Outcome::Loaded);
  CHECK(row.sha256 == sha256_hex(fixture.good()));
  REQUIRE(row.voucher);
  CHECK(row.voucher->text() == "key " + fixture.key().public_half().id());
  const auto maps = read_file("/proc/self/maps");
  CHECK_THAT(maps, Contains("/memfd:hansa_fixture_good.so"));
  CHECK_THAT(maps, !Contains(fixture.plugin().string()));
}

TEST_CASE("Under require_signed a file that nobody vouches for is refused with what to do") {
  SignedFixture fixture;
  const auto digest = "sha256:" + fixture.sha256();
  const TrustPolicy stranger{true, {PrivateKey::generate().public_half()}, {}};
  CHECK(
      fixture.refusal_of(stranger, fixture.plugin()) ==
      fmt::format(
          "is signed by key {}, which is not listed; list that key if you know whose it is, or list its digest if you "
          "trust it all the same: {}",
          fixture.key().public_half().id(), digest));
  fs::rename(fixture.signature(), fixture.root() / "away");
  CHECK_THAT(fixture.refusal(),
             Catch::StartsWith("is not signed (there is no hansa_fixture_good.so.sig beside it): sign it "
                               "with `hansa plugins sign`") &&
                 Catch::EndsWith(digest));
  write(fixture.signature(), read_file(fixture.root() / "away").substr(0, 200));
  CHECK_THAT(fixture.refusal(), Contains("damaged or truncated signature"));
  write(fixture.signature(), std::string(100000, 'x'));
  CHECK_THAT(fixture.refusal(), Contains("a signature file that is none"));
  fs::remove(fixture.signature());
  fs::create_directory(fixture.signature());
  CHECK_THAT(fixture.refusal(), Contains("a signature file that is none"));
  fs::remove(fixture.signature());

  write(fixture.signature(), signature_of(fixture.key(), "hansa_fixture_good.so", sha256_hex(fixture.other())));
  CHECK_THAT(fixture.refusal(), Contains("has the signature of another file"));
  const auto renamed = fixture.folder() / "hansa_renamed.so";
  fixture.sign();
  fs::rename(fixture.plugin(), renamed);
  fs::rename(fixture.signature(), renamed.string() + ".sig");
  CHECK_THAT(fixture.refusal_of(fixture.policy(), renamed), Contains("was signed as hansa_fixture_good.so"));
}

TEST_CASE("A file whose digest is listed needs no signature, and no other file has that digest") {
  const SignedFixture fixture;
  fs::remove(fixture.signature());
  TrustPolicy policy{true, {}, {}};
  CHECK(policy.add_digest("sha256:" + fixture.sha256()) == std::nullopt);
  const auto row = fixture.row(policy);
  REQUIRE(row.outcome == Outcome::Loaded);
  CHECK(row.voucher->text() == "its listed digest");
  overwrite_in_place(fixture.plugin(), fixture.other());
  CHECK_THAT(fixture.refusal_of(policy, fixture.plugin()), Contains("is not signed"));
  for (const auto* wrong : {"", "sha256:", "sha256:12", "md5:0123"})
    CHECK_THAT(policy.add_digest(wrong).value(), Contains("is no digest: write sha256: and 64 of 0-9a-f"));
  CHECK(policy.add_digest("sha256:" + std::string(64, 'A')).has_value());
}

TEST_CASE("What is overwritten after it was read is not what is loaded") {
  const SignedFixture fixture;
  auto trusted = open_trusted(fixture.plugin(), fixture.policy());
  REQUIRE(trusted);
  overwrite_in_place(fixture.plugin(), fixture.other());  // the same inode
  const auto opened = open_plugin(trusted.value().file, host_note());
  REQUIRE(opened);
  CHECK(opened.value().plugin->id == kGoodId);
  CHECK(opened.value().sha256 == sha256_hex(fixture.good()));
  CHECK(opened.value().sha256 != sha256_file_hex(fixture.plugin()));
  CHECK_THAT(fixture.refusal(), Contains("was changed after it was signed"));
}

TEST_CASE("Whatever stands at a path while it is looked at, only what was signed is loaded") {
  const SignedFixture fixture;
  const auto good = fixture.good(), other = fixture.other();
  std::atomic<bool> done{false};
  std::atomic<int> scans{0};
  std::thread swapper([&] {
    for (int i = 0; !done; ++i) {
      const auto& bytes = i % 2 ? good : other;
      if (i % 16 < 8)
        overwrite_in_place(fixture.plugin(), bytes);
      else
        write(fixture.plugin(), bytes);  // another inode
      // Mostly as fast as can be; now and then each content stays long enough to be seen whole.
      if (i % 8 > 1) continue;
      for (const int before = scans; !done && scans < before + 2;) std::this_thread::yield();
    }
  });
  int loaded = 0, refused = 0, wrong = 0;
  for (int i = 0; i < 80; ++i) {
    const auto row = fixture.row(fixture.policy());
    ++scans;
    loaded += row.outcome == Outcome::Loaded;
    refused += row.outcome == Outcome::Refused;
    wrong += row.plugin && row.plugin->id != kGoodId;
    wrong += row.plugin && row.sha256 != sha256_hex(good);
  }
  done = true;
  swapper.join();
  CHECK(wrong == 0);
  CHECK(loaded > 0);
  CHECK(refused > 0);
}

TEST_CASE("A sealed file cannot be written, made longer or shorter, or unsealed") {
  const SignedFixture fixture;
  const auto file = SealedFile::copy_of(fixture.plugin());
  const auto name = file.name_for_loader();
  const auto fd = open_file(name, O_RDWR);
  CHECK(::write(fd.get(), "x", 1) == -1);
  CHECK(errno == EPERM);
  CHECK(ftruncate(fd.get(), 0) == -1);
  CHECK(ftruncate(fd.get(), 1 << 24) == -1);
  CHECK(fcntl(fd.get(), F_ADD_SEALS, 0) == -1);
  void* mapped = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  CHECK(mapped == MAP_FAILED);
  CHECK(read_file(name) == fixture.good());
}

TEST_CASE("Two plugins from memory are two libraries, even when nobody holds the first any more") {
  const auto id_of = [](const std::string& bytes) {
    const TemporaryDirectory directory;
    write(directory.path() / "hansa_x.so", bytes);
    const auto opened = open_plugin(SealedFile::copy_of(directory.path() / "hansa_x.so"), host_note());
    REQUIRE(opened);
    return std::string(opened.value().plugin->id);
  };
  CHECK(id_of(SignedFixture::good()) == kGoodId);
  CHECK(id_of(SignedFixture::other()) == "org_hansa_fixture_variant");
  CHECK(id_of(SignedFixture::good()) == kGoodId);
}

TEST_CASE("A place where others may write is refused, whoever signed what lies there") {
  const SignedFixture fixture;
  const auto allow = [](const fs::path& path, unsigned mode) { fs::permissions(path, fs::perms(mode)); };
  allow(fixture.plugin(), 0666);
  CHECK(fixture.refusal() ==
        fmt::format("is a file that everybody may write to (mode 0666); take that right away: chmod go-w {}",
                    fixture.plugin().string()));
  allow(fixture.plugin(), 0664);
  CHECK_THAT(fixture.refusal(), Contains("its group may write to (mode 0664)"));
  allow(fixture.plugin(), 0644);

  const auto refused = [&] {  // the whole folder is one row
    CHECK_THAT(fixture.refusal(), Catch::StartsWith("lies in or below "));
    return fixture.refusal_of(fixture.policy(), fixture.folder());
  };
  for (const unsigned mode : {0777u, 0775u, 01777u}) {
    allow(fixture.folder(), mode);
    CHECK(refused() ==
          fmt::format("lies in or below {}, which {} may write to (mode {:04o}); take that right away: chmod go-w {}",
                      fixture.folder().string(), mode & 2 ? "everybody" : "its group", mode,
                      fixture.folder().string()));
  }
  allow(fixture.folder(), 0755);
  allow(fixture.root(), 0777);
  CHECK_THAT(refused(), Contains(fixture.root().string() + ", which everybody"));
  allow(fixture.root(), 01777);  // as /tmp: nobody can take the folder away
  CHECK(fixture.row(fixture.policy()).outcome == Outcome::Loaded);
  allow(fixture.root(), 0700);
  CHECK(fixture.row(TrustPolicy{}).outcome == Outcome::Loaded);
}

TEST_CASE("A symbolic link is followed, and what it leads through is looked at") {
  const SignedFixture fixture;
  const TemporaryDirectory elsewhere;
  fs::create_directory(elsewhere.path() / "open");
  const auto open_place = elsewhere.path() / "open";
  fs::permissions(open_place, fs::perms(0777));
  fs::copy_file(fixture.plugin(), open_place / "hansa_fixture_good.so");
  fs::copy_file(fixture.signature(), open_place / "hansa_fixture_good.so.sig");

  fs::create_directory(fixture.root() / "links");
  const auto link = fixture.root() / "links" / "hansa_fixture_good.so";
  fs::create_symlink(open_place / "hansa_fixture_good.so", link);
  CHECK_THAT(fixture.refusal_of(fixture.policy(), link), Contains(open_place.string() + ", which everybody"));
  CHECK_THAT(fixture.refusal_of(fixture.policy(), fixture.root() / "links"), Contains("which everybody"));
  fs::remove(link);

  fs::create_symlink(fixture.plugin(), open_place / "detour");  // a safe file by an unsafe way
  fs::create_symlink(open_place / "detour", link);
  CHECK_THAT(fixture.refusal_of(fixture.policy(), fixture.root() / "links"),
             Contains(open_place.string() + ", which everybody"));
  CHECK_THAT(fixture.refusal_of(fixture.policy(), link), Contains(open_place.string() + ", which everybody"));
  fs::remove(link);

  fs::create_symlink("../plugins/hansa_fixture_good.so", link);  // the signature beside the real file counts
  CHECK(fixture.row_of(fixture.policy(), link).outcome == Outcome::Loaded);
  fs::create_directory_symlink("plugins", fixture.root() / "current");
  CHECK(fixture.row_of(fixture.policy(), fixture.root() / "current").outcome == Outcome::Loaded);
  fs::create_symlink("loop", fixture.root() / "loop");
  CHECK(why_unguarded_file(fixture.root() / "loop") == "lies behind too many symbolic links");
  CHECK_THAT(why_unguarded_file(fixture.root() / "nowhere" / "x.so"), Contains("nowhere does not exist"));
  CHECK_THAT(why_unguarded_file(fixture.plugin() / "x.so"), Contains("is no directory"));
  REQUIRE(mkfifo((fixture.root() / "pipe").c_str(), 0600) == 0);
  CHECK(why_unguarded_file(fixture.root() / "pipe") == "is not a regular file");
}

TEST_CASE("What belongs to another user is refused") {
  const SignedFixture fixture;
  constexpr uid_t kSomebody = 12345;
  if (geteuid() == 0) {
    REQUIRE(chown(fixture.plugin().c_str(), kSomebody, 0) == 0);
    CHECK(fixture.refusal() ==
          fmt::format("is a file that belongs to user {}, who is neither root nor the user of this process "
                      "(0): chown it, or move the plugins to a place of your own",
                      kSomebody));
    CHECK(why_unguarded_file(fixture.plugin(), kSomebody).empty());
    REQUIRE(chown(fixture.plugin().c_str(), 0, 0) == 0);
    REQUIRE(chown(fixture.folder().c_str(), kSomebody, 0) == 0);
    CHECK_THAT(fixture.refusal(),
               Contains(fmt::format("lies behind {}, which belongs to user 12345", fixture.folder().string())));
  } else {  // to somebody else's process, what is ours is another user's
    CHECK_THAT(why_unguarded_file(fixture.plugin(), kSomebody), Contains(fmt::format("belongs to user {}", geteuid())));
  }
}

TEST_CASE("A key that others could exchange is no key to trust") {
  const SignedFixture fixture;
  fixture.key().write_new(fixture.root() / "release");
  const auto path = fixture.root() / "release.pub";
  TrustPolicy policy;
  CHECK(policy.add_key(path) == std::nullopt);
  CHECK(policy.keys.front().name == "release.pub");
  CHECK_THAT(policy.add_key(fixture.root() / "release").value(), Contains("is a private key"));
  fs::permissions(path, fs::perms(0666));
  CHECK_THAT(policy.add_key(path).value(), Contains("everybody may write to"));
  CHECK_THAT(policy.add_key(fixture.root() / "gone.pub").value(), Contains("gone.pub does not exist"));
  CHECK(policy.add_key(fixture.key().public_half().text()) == std::nullopt);
  CHECK(policy.keys.size() == 2);
}

TEST_CASE("Without require_signed everything is loaded, and who vouched for it is noted") {
  const SignedFixture fixture;
  auto policy = fixture.policy();
  policy.require_signed = false;
  fs::permissions(fixture.folder(), fs::perms(0777));
  const auto row = fixture.row(policy);
  REQUIRE(row.outcome == Outcome::Loaded);
  CHECK(row.voucher->key == fixture.key().public_half());
  fs::remove(fixture.signature());
  const auto unsigned_row = fixture.row(policy);
  CHECK(unsigned_row.outcome == Outcome::Loaded);
  CHECK(!unsigned_row.voucher);
}

TEST_CASE("Listings say who is trusted for what was loaded, and why a file or folder was refused") {
  const SignedFixture fixture;
  fixture.key().write_new(fixture.root() / "release");
  TrustPolicy policy{true, {}, {}};
  REQUIRE(policy.add_key(fixture.root() / "release.pub") == std::nullopt);
  write(fixture.folder() / "hansa_other.so", fixture.other());
  fs::create_directory(fixture.root() / "open");
  fs::permissions(fixture.root() / "open", fs::perms(0777));
  write(fixture.root() / "open" / "hansa_sun.so", fixture.other());
  StrategyRegistry registry;
  registry.set_trust(policy);
  registry.scan({fixture.folder(), "test"});
  registry.scan({fixture.root() / "open", "test"});
  const auto id = fixture.key().public_half().id();
  const auto text = list_text(registry, Rows::ComponentsAndFiles);
  CHECK_THAT(text, Contains("VOUCHED FOR BY") && Contains(fmt::format("key {} (release.pub)", id)));
  CHECK_THAT(text, Contains("hansa_other.so: is not signed") && Contains("hansa_fixture_good.so.sig: is a signature"));
  const auto json = nlohmann::json::parse(list_json(registry));
  REQUIRE(json["files"].size() == 4);
  CHECK(json["files"][0]["vouched_by"] == fmt::format("key {} (release.pub)", id));
  CHECK(json["files"][0]["signed_by"]["key_id"] == id);
  CHECK(json["files"][0]["signed_by"]["key"] == "release.pub");
  CHECK(json["files"][1]["outcome"] == "skipped");
  CHECK(json["files"][2]["outcome"] == "refused");
  CHECK(!json["files"][2].contains("signed_by"));
  CHECK_THAT(registry.remark("aggregator", "sun"), Contains("open lies in or below"));
}
