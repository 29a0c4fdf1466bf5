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

// Facts of the good fixture with one line of its note replaced.
std::string refusal_with(const std::string& key, const std::string& value) {
  auto facts = read_elf(bytes_of(good_file())).value();
  auto note = parse_note(facts.note);
  facts.note.clear();
  for (const auto& [name, held] : note) facts.note += name + "=" + (name == key ? value : held) + "\n";
  return incompatibility(facts, host_note()).value_or("accepted");
}
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

TEST_CASE("Each differing field is named with what was built, what is needed and how to rebuild") {
  const auto torch = held("torch"), hash = held("kind.aggregator/1");
  const std::string rebuild = "cmake -S <its source> -B build && cmake --build build";
  CHECK(refusal_with("contract", "2.0") ==
        "was built for another host: contract: built for 2.0, this host needs 1.0 to 1.0. Rebuild it with this host's "
        "SDK: " +
            rebuild + "; or use a newer hansa");
  CHECK_THAT(refusal_with("contract", "1.1"), Catch::Contains("contract: built for 1.1, this host needs 1.0 to 1.0"));
  CHECK_THAT(refusal_with("contract", "soon"), Catch::Contains("contract: built for soon"));
  CHECK(refusal_with("torch", "2.12.0") == fmt::format("was built for another host: LibTorch: built for 2.12.0, this "
                                                       "host needs {}. Rebuild it with -DHANSA_LIBTORCH set "
                                                       "to this host's LibTorch: {}",
                                                       torch, rebuild));
  CHECK_THAT(refusal_with("kind.aggregator/1", "0123456789abcdef"),
             Catch::Contains("interface aggregator/1: built for 0123456789abcdef, this host needs " + hash));
  CHECK_THAT(refusal_with("cxx_library", "libc++"),
             Catch::Contains("C++ library: built for libc++, this host needs libstdc++"));
  CHECK_THAT(refusal_with("cxx_strings", "old"),
             Catch::Contains("C++ string layout: built for old, this host needs cxx11"));
  CHECK_THAT(refusal_with("torch_cuda", "maybe"), Catch::Contains("LibTorch with CUDA: built for maybe"));
  CHECK_THAT(refusal_with("sanitiser", "memory"),
             Catch::Contains("sanitiser: built for memory, this host needs " + held("sanitiser")));
  CHECK(refusal_with("build", "debug") == "accepted");  // for people only
  CHECK(refusal_with("hansa", "9.9") == "accepted");
}

TEST_CASE("Only differing fields are shown, all of them at once") {
  auto facts = read_elf(bytes_of(good_file())).value();
  facts.note = "contract=1.0\nkind.aggregator/2=00\nkind.oracle/1=00\ncxx_library=libstdc++\n";
  const auto why = incompatibility(facts, host_note()).value();
  CHECK_THAT(why, Catch::Contains("interface aggregator/2: this host knows aggregator/1"));
  CHECK_THAT(why, Catch::Contains("interface oracle/1: this host knows no such kind"));
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
