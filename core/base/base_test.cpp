#include <set>
#include <thread>

#include <unistd.h>

#include "base/digest.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/ids.hpp"
#include "base/rng.hpp"
#include "test.hpp"

using namespace hansa;

TEST_CASE("SHA-256 and HMAC agree with the published test vectors") {
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-4
  CHECK(to_hex(hmac_sha256("Jefe", "what do ya want for nothing?")) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");  // RFC 4231, case 2
}

TEST_CASE("a running checksum equals the checksum of the whole, however it is cut") {
  std::string text(10'000, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31);
  const auto bytes = std::as_bytes(std::span(text));
  RunningChecksum running;
  running.add(bytes.first(1));
  running.add(bytes.subspan(1, 4096));
  running.add(bytes.subspan(4097));
  CHECK(running.value() == xxh3_128(bytes));
  CHECK(Checksum::from_hex(running.value().hex()) == running.value());
  CHECK_THROWS_AS(Checksum::from_hex("12"), Error);
}

TEST_CASE("seeds differ by purpose and part, and repeat") {
  std::set<std::uint64_t> seeds{derive_seed(1, "data"),         derive_seed(2, "data"),
                                derive_seed(1, "init"),         derive_seed(1, "data", {0}),
                                derive_seed(1, "data", {0, 1}), derive_seed(1, "data", {1, 0})};
  CHECK(seeds.size() == 6);
  CHECK(derive_seed(1, "data", {0, 1}) == derive_seed(1, "data", {0, 1}));
}

TEST_CASE("SplitMix64 gives the sequence of its reference implementation") {
  SplitMix64 rng(1234567);
  CHECK(rng.next() == 6457827717110365317ull);  // Vigna's splitmix64.c
  CHECK(rng.next() == 3203168211198807973ull);
  for (int i = 0; i < 1000; ++i) CHECK(rng.below(7) < 7);
}

TEST_CASE("node names are safe as file names and give stable ids") {
  CHECK(is_node_name("hospital-3.ward_b"));
  for (auto bad : {"", ".", "..", "-x", "a/b", "a b", "\xc3\xa4"}) CHECK_FALSE(is_node_name(bad));
  CHECK(node_id("de") == node_id("de"));
  CHECK(node_id("de") != node_id("it"));
  CHECK(node_id("de") < (1ull << 63));
}

TEST_CASE("an atomic write replaces the whole file and leaves no temporary name") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "state";
  write_file_atomically(path, "one", Durability::Process);
  write_file_atomically(path, "second", Durability::Power);
  CHECK(read_file(path) == "second");
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
  CHECK_THROWS_WITH(read_file(dir.path() / "none"), Catch::Contains("No such file"));
}

TEST_CASE("a map outlives the file's name") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "data";
  write_file_atomically(path, "hello", Durability::Process);
  MappedFile map(path);
  std::filesystem::remove(path);
  CHECK(map.bytes().size() == 5);
  CHECK(static_cast<char>(map.bytes()[4]) == 'o');
}
