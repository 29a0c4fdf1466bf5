// Plugins that differ from a good one in one thing each. Every refusal has to say what the file was built for, what this host
// needs, and what to do. Files that differ in their build note alone are copies with another note.
#include <fmt/format.h>

#include "base/file.hpp"
#include "plugin_host/registry.hpp"
#include "test.hpp"

#include <dlfcn.h>

using namespace hansa;
namespace fs = std::filesystem;

namespace {

const fs::path kRefused = HANSA_FIXTURES;
const fs::path kGood = kRefused / "good" / "hansa_fixture_good.so";
const std::string kRebuild = "cmake -S <its source> -B build && cmake --build build";

struct Changed {  // one line of the note, by its beginning; same length of text in the file
  std::string from, to;
};

// The good plugin with that line changed. The note keeps its size: the line that is for people alone gives way.
fs::path with_note(const fs::path& folder, const Changed& line) {
  auto bytes = read_file(kGood);
  const auto first = bytes.find("contract=");
  const auto end = bytes.find('\0', first);
  REQUIRE(end != std::string::npos);
  std::string text;
  bool changed = false;
  for (const auto& [key, value] : parse_note(bytes.substr(first, end - first))) {
    const auto held_by_host = fmt::format("{}={}", key, value);
    changed = changed || held_by_host.starts_with(line.from);
    if (held_by_host.starts_with(line.from))
      text += line.to + "\n";
    else if (key != "compiler")
      text += held_by_host + "\n";
  }
  REQUIRE(changed);
  REQUIRE(text.size() <= end - first);
  text.resize(end - first, '\n');
  bytes.replace(first, text.size(), text);
  const auto path = folder / "hansa_changed.so";
  write_file_atomically(path, bytes, Durability::Process);
  return path;
}
fs::path for_machine(const fs::path& folder, char machine) {
  auto bytes = read_file(kGood);
  bytes[18] = machine;
  const auto path = folder / "hansa_changed.so";
  write_file_atomically(path, bytes, Durability::Process);
  return path;
}
fs::path fixture(const std::string& name) { return kRefused / name / fmt::format("hansa_fixture_{}.so", name); }

std::string held_by_host(const std::string& key) { return *find(host_note(), key); }
std::string other_than(const std::string& key, const char* one, const char* two) {
  return held_by_host(key) == one ? two : one;
}

enum class Code { NotRun, Run };  // is any of the file's code run before it is refused?

struct Row {
  std::string what;
  fs::path file;  // "": the good one with `note` changed
  Changed note;
  std::string built, needed, to_do;
  Code code = Code::NotRun;
  fs::path beside = {};  // loaded before it
};

std::vector<Row> rows(const fs::path& scratch) {
  const auto sdk = "Rebuild it with this host's SDK: " + kRebuild;
  const auto newer = sdk + "; or use a newer hansa";
  const auto torch = "Rebuild it with -DHANSA_LIBTORCH set to this host's LibTorch: " + kRebuild;
  const auto mend = "Correct what its source says under HANSA_PLUGIN, and rebuild it";
  const auto needs = [](const std::string& key) { return "this host needs " + held_by_host(key); };
  const auto cuda = other_than("torch_cuda", "yes", "no"), sanitiser = other_than("sanitiser", "none", "address");
  return {
      {"contract, major",
       {},
       {"contract=", "contract=2.0"},
       "contract: built for 2.0",
       "this host needs 1.0 to 1.0",
       newer},
      {"contract, older",
       {},
       {"contract=", "contract=0.9"},
       "contract: built for 0.9",
       "this host needs 1.0 to 1.0",
       sdk},
      {"contract, newer minor",
       {},
       {"contract=", "contract=1.1"},
       "contract: built for 1.1",
       "this host needs 1.0 to 1.0",
       newer},
      {"contract, no number",
       {},
       {"contract=", "contract=soon"},
       "contract: built for soon",
       "this host needs 1.0",
       sdk},
      {"hash of an interface",
       {},
       {"kind.aggregator/1=", "kind.aggregator/1=0123456789abcdef"},
       "interface aggregator/1: built for 0123456789abcdef",
       needs("kind.aggregator/1"),
       sdk},
      {"revision of a kind",
       {},
       {"kind.aggregator/1=", "kind.aggregator/9=0123456789abcdef"},
       "interface: built for aggregator/9",
       "this host needs aggregator/1",
       newer},
      {"kind",
       {},
       {"kind.aggregator/1=", "kind.oracle/1=0123456789abcdef"},
       "interface: built for oracle/1",
       "this host knows no kind 'oracle'",
       newer},
      {"LibTorch", {}, {"torch=", "torch=2.12.0"}, "LibTorch: built for 2.12.0", needs("torch"), torch},
      {"CUDA",
       {},
       {"torch_cuda=", "torch_cuda=" + cuda},
       "LibTorch with CUDA: built for " + cuda,
       needs("torch_cuda"),
       torch},
      {"C++ library",
       {},
       {"cxx_library=", "cxx_library=libc++"},
       "C++ library: built for libc++",
       needs("cxx_library"),
       "Rebuild it with this host's compiler and C++ library: " + kRebuild},
      {"C++ ABI",
       {},
       {"cxx_strings=", "cxx_strings=old"},
       "C++ string layout: built for old",
       "this host needs cxx11",
       "Rebuild it with the same _GLIBCXX_USE_CXX11_ABI: " + kRebuild},
      {"_GLIBCXX_DEBUG",
       fixture("debug_containers"),
       {},
       "_GLIBCXX_DEBUG: built for yes",
       "this host needs no",
       "Rebuild it with the same _GLIBCXX_DEBUG: " + kRebuild},
      // To load this one would end the process.
      {"sanitiser",
       fixture("sanitised"),
       {},
       "sanitiser: built for " + sanitiser,
       needs("sanitiser"),
       "Rebuild it with the same -fsanitize flags: " + kRebuild},
      {"a field that is missing",
       {},
       {"cxx_library=", "nothing"},
       "C++ library: built for nothing stated",
       needs("cxx_library"),
       kRebuild},
      {"no note",
       fixture("no_note"),
       {},
       "nothing says what it was built for",
       "this host needs to know",
       "Build it with hansa_add_plugin of this host's SDK: " + kRebuild},
      {"machine",
       for_machine(scratch, 8),
       {},
       "was built for another machine",
       "this host needs " + std::string(machine_name(host_machine())),
       "Rebuild it for this machine"},
      {"C++ runtime of its own",
       fixture("static_runtime"),
       {},
       "was built with a C++ runtime of its own",
       "this host needs a plugin to share libstdc++.so",
       "Link it without -static-libstdc++ and -static-libgcc: " + kRebuild},
      {"symbols",
       fixture("extra_symbol"),
       {},
       "exports one symbol more than hansa_plugin_entry: hansa_fixture_helper",
       "This host needs that one alone",
       "Build it with hansa_add_plugin, which hides them"},
      {"no entry",
       fixture("no_entry"),
       {},
       "does not export hansa_plugin_entry",
       "which this host needs",
       "Describe the plugin with HANSA_PLUGIN (hansa/plugin.hpp) and build it with hansa_add_plugin"},

      {"an entry that throws",
       fixture("entry_throws"),
       {},
       "its entry threw: the licence server is away",
       "this host needs an entry that describes the plugin and does no more",
       "Mend what it complains of",
       Code::Run},
      {"contract of the table",
       fixture("other_contract"),
       {},
       "contract: built for 2.0",
       "this host needs 1.0 to 1.0",
       sdk,
       Code::Run},
      {"size of the plugin's table",
       fixture("short_plugin"),
       {},
       fmt::format("the plugin's table was built with {} bytes", sizeof(HansaPlugin) - 8),
       fmt::format("this host needs {}", sizeof(HansaPlugin)),
       sdk,
       Code::Run},
      {"size of a component's table",
       fixture("short_component"),
       {},
       fmt::format("a component's table was built with {} bytes", sizeof(HansaComponent) - 8),
       fmt::format("this host needs {}", sizeof(HansaComponent)),
       sdk,
       Code::Run},
      {"revision of a component",
       fixture("kind_revision"),
       {},
       "component 'sum': it was built for aggregator/9",
       "this host needs a kind of the file's build note (aggregator/1)",
       mend,
       Code::Run},
      {"an id twice in one file", fixture("twice"), {}, "component 'sum' is described twice", "", mend, Code::Run},
      {"a function that is missing",
       fixture("no_destroy"),
       {},
       "component 'sum': one of validate, traits, create, destroy is null",
       "",
       mend,
       Code::Run},
      {"parameter table",
       fixture("bad_range"),
       {},
       "component 'sum', parameter share: the minimum 2 is above the maximum 1",
       "",
       mend,
       Code::Run},
      {"an id that another has",
       fixture("duplicate"),
       {},
       "offers aggregator 'sum', which " + kGood.string() + " offers already",
       "this host needs one of each",
       "take one of the two files off the search path",
       Code::Run,
       kGood},
  };
}

}  // namespace

TEST_CASE("A plugin that differs in one thing is refused: what it was built for, what this host needs, what to do") {
  TemporaryDirectory scratch;
  for (const auto& row : rows(scratch.path())) {
    INFO(row.what);
    TemporaryDirectory folder;
    const auto file = row.file.empty() ? with_note(folder.path(), row.note) : row.file;
    StrategyRegistry registry;
    if (!row.beside.empty()) registry.scan({row.beside, "test"});
    const auto components = registry.components().size();
    registry.scan({file, "test"});
    const auto& seen = registry.files().back();
    CHECK(seen.outcome == Outcome::Refused);
    CHECK_THAT(seen.why, Catch::Contains(row.built));
    CHECK_THAT(seen.why, Catch::Contains(row.needed));
    CHECK_THAT(seen.why,
               Catch::EndsWith(row.to_do) || Catch::Contains(row.to_do + " ") || Catch::Contains(row.to_do + ","));
    CHECK(registry.components().size() == components);
    const bool loaded = dlopen(file.c_str(), RTLD_NOW | RTLD_NOLOAD) != nullptr;
    CHECK(loaded == (row.code == Code::Run));
  }
}

TEST_CASE("What is wrong in nothing is loaded, and fields for people alone may differ") {
  TemporaryDirectory one, two;
  for (const auto& file : {fixture("duplicate"), with_note(one.path(), {"build=", "build=debug"}),
                           with_note(two.path(), {"hansa=", "hansa=9.9"})}) {
    StrategyRegistry registry;
    registry.scan({file, "test"});
    CHECK(registry.files().back().why == "");
    CHECK(registry.files().back().outcome == Outcome::Loaded);
  }
}

TEST_CASE("Tables that grew at their end are read as far as this host knows them") {
  StrategyRegistry registry;
  registry.scan({fixture("longer_tables"), "test"});
  CHECK(registry.files().back().why == "");
  REQUIRE(registry.files().back().plugin);
  const auto& plugin = *registry.files().back().plugin;
  CHECK(plugin.struct_size > sizeof(HansaPlugin));
  REQUIRE(plugin.component_count == 1);
  CHECK(plugin.components[0]->struct_size > sizeof(HansaComponent));
  const auto* component = registry.find("aggregator", "sum");
  REQUIRE(component);
  CHECK(std::string(component->summary) == "A sum.");
  HansaTraits traits{};
  traits.struct_size = sizeof traits;
  CHECK(component->traits(component, nullptr, &traits) == 0);
}

TEST_CASE("A refusal is one sentence, with the command that helps") {
  TemporaryDirectory folder;
  StrategyRegistry registry;
  registry.scan({with_note(folder.path(), {"torch=", "torch=2.12.0"}), "test"});
  CHECK(registry.files().back().why ==
        fmt::format("was built for another host: LibTorch: built for 2.12.0, this host needs {}. Rebuild it with "
                    "-DHANSA_LIBTORCH set to this host's LibTorch: {}",
                    held_by_host("torch"), kRebuild));
}
