#include <filesystem>
#include <string>

#include "base/rng.hpp"
#include "full_disk.hpp"
#include "round/spool.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

std::string payload(std::size_t size) {
  SplitMix64 rng(3);
  std::string bytes(size, '\0');
  for (auto& byte : bytes) byte = static_cast<char>(rng.next());
  return bytes;
}
std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }
WorkItem work(Round round, std::uint32_t attempt, NodeId node) {
  return {WorkItem::Task::Train, round, attempt, round - 1, node, "t"};
}

}  // namespace

TEST_CASE("an upload survives a kill at any point and goes on from what is held") {
  TemporaryDirectory dir;
  const Spool spool(dir.path() / "spool", Durability::Process);
  const auto bytes = payload(10'000);
  std::uint64_t sent = 0;
  for (const std::uint64_t chunk : {1, 999, 3000, 3000, 3000}) {
    auto file = spool.open(work(1, 1, 5), 10'000);  // each chunk after a restart
    REQUIRE(file.held() == sent);
    CHECK_FALSE(file.write(sent, bytes_of(bytes).subspan(sent, chunk)));
    sent += chunk;
  }
  auto file = spool.open(work(1, 1, 5), 10'000);
  CHECK_FALSE(file.write(4'000, bytes_of(bytes).subspan(4'000)));
  CHECK_FALSE(file.seal(10'000, xxh3_128(bytes_of(bytes))));
  CHECK_FALSE(file.seal(10'000, xxh3_128(bytes_of(bytes))));
  CHECK(file.sealed());
  CHECK(read_file(file.path()) == bytes);
}

TEST_CASE("bytes that overlap are taken once, a gap is refused and says where to go on") {
  TemporaryDirectory dir;
  SpoolFile file(dir.path() / "u", 100, Durability::Process);
  const std::string bytes = "0123456789";
  CHECK_FALSE(file.write(0, bytes_of(bytes).first(6)));
  CHECK_FALSE(file.write(2, bytes_of(bytes).subspan(2, 3)));
  CHECK_FALSE(file.write(4, bytes_of(bytes).subspan(4)));
  const auto refusal = file.write(11, bytes_of(bytes));
  REQUIRE(refusal);
  CHECK(refusal->retry);
  CHECK_THAT(refusal->message, Catch::Contains("10 was next"));
  CHECK(read_file(file.path()) == bytes);
}

TEST_CASE("an upload beyond its largest size is refused and what is held stays") {
  TemporaryDirectory dir;
  SpoolFile file(dir.path() / "u", 8, Durability::Process);
  CHECK_FALSE(file.write(0, bytes_of("12345678")));
  const auto refusal = file.write(8, bytes_of("9"));
  REQUIRE(refusal);
  CHECK(refusal->code == Refusal::Code::TooLarge);
  CHECK(file.held() == 8);
  CHECK(file.seal(9, Checksum{})->code == Refusal::Code::TooLarge);
}

TEST_CASE("a commit is refused while bytes are missing, and starts over when the checksum is wrong") {
  TemporaryDirectory dir;
  SpoolFile file(dir.path() / "u", 100, Durability::Power);
  const std::string bytes = "the right bytes", wrong = "the wrong bytes";
  CHECK_FALSE(file.write(0, bytes_of(wrong)));
  const auto missing = file.seal(50, xxh3_128(bytes_of(bytes)));
  REQUIRE(missing);
  CHECK(missing->code == Refusal::Code::BadPayload);
  CHECK(missing->retry);
  CHECK(file.held() == wrong.size());
  const auto bad = file.seal(bytes.size(), xxh3_128(bytes_of(bytes)));
  REQUIRE(bad);
  CHECK(bad->code == Refusal::Code::BadChecksum);
  CHECK(file.held() == 0);
  CHECK_FALSE(file.write(0, bytes_of(bytes)));
  CHECK_FALSE(file.seal(bytes.size(), xxh3_128(bytes_of(bytes))));
  // Once complete it is not changed any more.
  CHECK(file.write(bytes.size(), bytes_of("!")));
  CHECK_FALSE(file.seal(3, Checksum{})->retry);
  CHECK(read_file(file.path()) == bytes);
}

TEST_CASE("a full disk makes an upload wait and loses nothing that was taken") {
  TemporaryDirectory dir;
  SpoolFile file(dir.path() / "u", 1000, Durability::Process);
  const auto bytes = payload(600);
  CHECK_FALSE(file.write(0, bytes_of(bytes).first(200)));
  {
    FullDisk full(100);
    const auto refusal = file.write(200, bytes_of(bytes).subspan(200));
    REQUIRE(refusal);
    CHECK(refusal->code == Refusal::Code::Busy);
    CHECK(refusal->retry);
    CHECK(refusal->after_ms > 0);
    CHECK(file.held() == 200);
  }
  CHECK(std::filesystem::file_size(file.path()) == 200);
  CHECK_FALSE(file.write(200, bytes_of(bytes).subspan(200)));
  CHECK_FALSE(file.seal(600, xxh3_128(bytes_of(bytes))));
}

TEST_CASE("a spool keeps the files of one attempt and clears the others") {
  TemporaryDirectory dir;
  const Spool spool(dir.path() / "spool", Durability::Process);
  for (auto [round, attempt] : {std::pair<Round, std::uint32_t>{1, 1}, {2, 1}, {2, 2}, {22, 2}}) {
    for (NodeId node : {1, 2}) CHECK_FALSE(spool.open(work(round, attempt, node), 10).write(0, bytes_of("abc")));
  }
  CHECK(spool.bytes() == 24);
  spool.remove_all_but(2, 2);
  CHECK(spool.bytes() == 6);
  CHECK(std::filesystem::exists(spool.path_of(2, 2, 1)));
  spool.remove(2, 2, 1);
  spool.remove(2, 2, 1);
  CHECK(spool.bytes() == 3);
}
