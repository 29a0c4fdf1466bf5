#include "plugin_host/build_note.hpp"

#include <cstring>
#include <random>

#include <fmt/format.h>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

std::string good_file() { return read_file(HANSA_FIXTURES "/good/hansa_fixture_good.so"); }
std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string held(const std::string& key) { return *find(host_note(), key); }

}  // namespace

TEST_CASE("The reader finds note, needed libraries and exports of a real plugin") {
  const auto facts = read_elf(bytes_of(good_file()));
  REQUIRE(facts);
  CHECK(facts.value().exports == std::vector<std::string>{"hansa_plugin_entry"});
  CHECK(std::find(facts.value().needed.begin(), facts.value().needed.end(), "libc10.so") != facts.value().needed.end());
  const auto note = parse_note(facts.value().note);
  CHECK(kinds_of(note) == std::vector<std::string>{"aggregator/1"});
  CHECK(*find(note, "contract") == "1.0");
  CHECK_FALSE(incompatibility(facts.value(), host_note()));
}

TEST_CASE("The host's own note names every kind") {
  const auto kinds = kinds_of(host_note());
  for (const auto* kind : {"adapter/1", "aggregator/1", "compressor/1", "data_source/1", "evaluator/1", "model/1",
                           "privacy/1", "selector/1", "round_policy/1", "server_optimizer/1", "trainer/1"})
    CHECK(std::find(kinds.begin(), kinds.end(), kind) != kinds.end());
}

TEST_CASE("Only differing fields are shown, all of them at once") {
  auto facts = read_elf(bytes_of(good_file())).value();
  facts.note = "contract=1.0\nkind.aggregator/2=00\nkind.oracle/1=00\ncxx_library=libstdc++\n";
  const auto why = incompatibility(facts, host_note()).value();
  CHECK_THAT(why, Catch::Contains("interface: built for aggregator/2, this host needs aggregator/1"));
  CHECK_THAT(why, Catch::Contains("interface: built for oracle/1, this host knows no kind 'oracle'"));
  CHECK_THAT(why, Catch::Contains("LibTorch: built for nothing stated"));
  CHECK_THAT(why, !Catch::Contains("contract"));
  CHECK_THAT(why, !Catch::Contains("C++ library"));
}

TEST_CASE("A library that merely links a sanitiser's runtime is refused as well") {
  auto facts = read_elf(bytes_of(good_file())).value();
  const auto other = held("sanitiser") == "thread" ? "address" : "thread";
  facts.needed.push_back(std::string(other) == "thread" ? "libtsan.so.2" : "libasan.so.8");
  CHECK_THAT(incompatibility(facts, host_note()).value(),
             Catch::Contains(fmt::format("sanitiser: built for {}", other)));
}

TEST_CASE("Files that are no shared library are told apart") {
  const auto why = [](const std::string& bytes) { return read_elf(bytes_of(bytes)).error(); };
  CHECK_THAT(why(""), Catch::Contains("is not a shared library"));
  CHECK_THAT(why("#!/bin/sh\n"), Catch::Contains("is not a shared library"));
  CHECK_THAT(why("\x7f"
                 "ELF"),
             Catch::Contains("truncated"));
  auto other = good_file();
  other[18] = 8, other[19] = 0;  // MIPS
  CHECK_THAT(why(other), Catch::Contains("this host needs " + std::string(machine_name(host_machine()))));
  auto narrow = good_file();
  narrow[4] = 1;
  CHECK_THAT(why(narrow), Catch::Contains("64-bit"));
  auto program = good_file();
  program[16] = 2;
  CHECK_THAT(why(program), Catch::Contains("no shared library"));
}

TEST_CASE("Truncated and mutated files give facts or a sentence, never a read outside the bytes") {
  const auto whole = good_file();
  for (std::size_t size = 0; size < whole.size(); size += size < 4096 ? 13 : 997) {
    const std::string cut(whole.data(), size);
    CHECK_FALSE(read_elf(bytes_of(cut)));
  }
  std::mt19937_64 random(7);
  std::size_t readable = 0;
  for (int i = 0; i < 2000; ++i) {
    auto bytes = whole;
    // The header and the section table at the end decide everything.
    for (int flips = 0; flips < 4; ++flips) {
      const auto at = random() % 2 ? random() % 64 : bytes.size() - 1 - random() % 2048;
      bytes[at] = static_cast<char>(random());
    }
    if (read_elf(bytes_of(bytes))) ++readable;
  }
  CHECK(readable < 2000);
}
