#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/rng.hpp"
#include "full_disk.hpp"
#include "round/journal.hpp"
#include "round/ledger.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

void overwrite(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}
const std::vector<std::string> kRecords{R"({"n":1})", R"({"n":2,"text":"two"})", R"({"n":3})"};

std::string journal_of(const std::filesystem::path& path, const std::vector<std::string>& records) {
  Journal journal(path, Durability::Process);
  for (const auto& record : records) journal.append(record);
  return read_file(path);
}

}  // namespace

TEST_CASE("a journal gives back what was appended, and is private") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "journal";
  journal_of(path, kRecords);
  Journal again(path, Durability::Power);
  CHECK(again.take_records() == kRecords);
  CHECK(again.take_records().empty());
  CHECK(again.note().empty());
  struct stat status {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("a journal cut at any byte keeps the records before it and goes on") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "journal";
  const auto whole = journal_of(path, kRecords);
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    overwrite(path, whole.substr(0, cut));
    {
      Journal journal(path, Durability::Process);
      const auto kept = journal.take_records();
      const auto lines =
          static_cast<std::size_t>(std::count(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut), '\n'));
      REQUIRE(kept ==
              std::vector<std::string>(kRecords.begin(), kRecords.begin() + static_cast<std::ptrdiff_t>(lines)));
      REQUIRE((journal.cut_bytes() == 0) == journal.note().empty());
      journal.append(R"({"after":true})");
    }
    Journal again(path, Durability::Process);
    REQUIRE(again.take_records().back() == R"({"after":true})");
  }
}

TEST_CASE("a journal damaged before its end is refused, naming the place") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "journal";
  const auto whole = journal_of(path, kRecords);
  const auto first_line = whole.find('\n') + 1, second_line = whole.find('\n', first_line) + 1;

  auto changed = whole;
  changed[first_line + 25] ^= 1;
  overwrite(path, changed);
  CHECK_THROWS_WITH(Journal(path, Durability::Process),
                    Catch::Contains("damaged at byte") && Catch::Contains("record 2"));

  // A record taken out of the middle: each line alone is whole, the chain is not.
  Journal(dir.path() / "longer", Durability::Process);
  auto longer = journal_of(dir.path() / "longer", {kRecords[0], kRecords[1], kRecords[2], kRecords[0]});
  overwrite(path, longer.substr(0, first_line) + longer.substr(second_line));
  CHECK_THROWS_WITH(Journal(path, Durability::Process), Catch::Contains("record 2"));
}

TEST_CASE("a last line that a power cut left in pieces is cut from the journal, but refused by a ledger") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "journal";
  auto bytes = journal_of(path, kRecords);
  bytes[bytes.size() - 3] = '\0';
  overwrite(path, bytes);
  CHECK_THROWS_AS(Journal(path, Durability::Process, Journal::Tail::CutUnfinished), Error);
  Journal journal(path, Durability::Process);
  CHECK(journal.take_records().size() == 2);
  CHECK_THAT(journal.note(), Catch::Contains("were cut off"));
}

TEST_CASE("a full disk leaves a journal without the record and without a piece of it") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "journal";
  Journal journal(path, Durability::Power);
  journal.append(kRecords[0]);
  const auto before = read_file(path);
  {
    FullDisk full(5);
    CHECK_THROWS_AS(journal.append(kRecords[1]), DiskFull);
  }
  CHECK(read_file(path) == before);
  journal.append(kRecords[2]);
  Journal again(path, Durability::Process);
  CHECK(again.take_records() == std::vector<std::string>{kRecords[0], kRecords[2]});
}

// ---- ledger

namespace {
const SpendEvent kEvent{"gaussian", 1.1, 0.01, 1, "add-remove"};
}

TEST_CASE("an unreleased charge is repeated for free, a released one never") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "ledger";
  {
    Ledger ledger(path);
    CHECK(ledger.would_be(1, kEvent) == Ledger::Charge::New);
    CHECK(ledger.charge(1, 1, kEvent) == Ledger::Charge::New);
    CHECK(ledger.charge(1, 2, kEvent) == Ledger::Charge::Repeated);
    CHECK(ledger.events().size() == 1);
  }
  {
    Ledger ledger(path);  // after a kill
    CHECK(ledger.charge(1, 1, kEvent) == Ledger::Charge::Repeated);
    ledger.released(1, 1, 1);
    CHECK(ledger.was_released(1));
  }
  Ledger ledger(path);  // somebody goes back behind the announced version
  CHECK(ledger.was_released(1));
  CHECK_FALSE(ledger.was_released(2));
  CHECK(ledger.charge(1, 2, kEvent) == Ledger::Charge::New);
  CHECK(ledger.charge(1, 2, kEvent) == Ledger::Charge::Repeated);
  CHECK(ledger.events() == std::vector<SpendEvent>{kEvent, kEvent});
}

TEST_CASE("a repeat with other noise is charged in full") {
  TemporaryDirectory dir;
  Ledger ledger(dir.path() / "ledger");
  ledger.charge(1, 1, kEvent);
  auto other = kEvent;
  other.noise_multiplier = 0.9;
  CHECK(ledger.charge(1, 2, other) == Ledger::Charge::New);
  CHECK(ledger.events().size() == 2);
}

TEST_CASE("a ledger cut at any byte forgets at most the charge that had not returned") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "ledger";
  std::vector<std::pair<std::uintmax_t, std::size_t>> returned;  // file size, events by then
  {
    Ledger ledger(path);
    for (Round round = 1; round <= 4; ++round) {
      ledger.charge(round, 1, kEvent);
      returned.emplace_back(std::filesystem::file_size(path), ledger.events().size());
      ledger.released(round, 1, round);
    }
  }
  const auto whole = read_file(path);
  for (std::size_t cut = 0; cut <= whole.size(); cut += 13) {  // coprime to the line lengths: every kind of place
    overwrite(path, whole.substr(0, cut));
    std::size_t sure = 0;
    for (const auto& [size, events] : returned) {
      if (size <= cut) sure = events;
    }
    REQUIRE(Ledger(path).events().size() == sure);
  }
}

TEST_CASE("a damaged ledger is refused wherever the damage is") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "ledger";
  {
    Ledger ledger(path);
    ledger.charge(1, 1, kEvent);
    ledger.released(1, 1, 1);
    ledger.charge(2, 1, kEvent);
  }
  const auto whole = read_file(path);
  SplitMix64 rng(7);
  for (int i = 0; i < 200; ++i) {
    auto damaged = whole;
    const auto at = rng.below(whole.size() - 1);  // not the last line's end: without it the line is an unfinished one
    damaged[at] ^= static_cast<char>(1 + rng.below(255));
    overwrite(path, damaged);
    REQUIRE_THROWS_AS(Ledger(path), Error);
  }
}
