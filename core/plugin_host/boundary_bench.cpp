// What the plugin boundary costs, with a real plugin: a guarded call against the same call made directly, with a watch beside
// it as on a coordinator; the notes of 100 files; loading every built-in plugin. Arguments: a folder with plugins,
// and an aggregator among them that does not survey.
// Prints "name value" lines for tests/bench/boundary.py.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include <hansa/aggregator.hpp>

#include "base/file.hpp"
#include "plugin_host/elf_file.hpp"
#include "plugin_host/instance.hpp"
#include "plugin_host/registry.hpp"

namespace {

using namespace hansa;
namespace fs = std::filesystem;

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median_of(int repeats, const auto& measure) {
  std::vector<double> all;
  for (int i = 0; i < repeats; ++i) all.push_back(measure());
  std::nth_element(all.begin(), all.begin() + repeats / 2, all.end());
  return all[static_cast<std::size_t>(repeats / 2)];
}

double notes_of_100(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  const auto host = host_note();
  return median_of(5, [&] {
    return seconds_of([&] {
      for (std::size_t i = 0; i < 100; ++i) {
        const MappedFile file(files[i % files.size()]);
        const auto facts = read_elf(file.bytes());
        if (!facts || incompatibility(facts.value(), host)) std::puts("a plugin does not fit this host");
      }
    });
  });
}

void calls(const StrategyRegistry& registry, std::string_view name) {
  constexpr int kCalls = 1'000'000;
  CallWatch watch({});
  HostServices services;
  services.watch = &watch;
  const auto rule = create<Aggregator>(registry, name, Value(), services);
  std::size_t seen = 0;
  const auto direct = median_of(5, [&] {
    return seconds_of([&] {
      for (int i = 0; i < kCalls; ++i) seen += rule->surveys();
    });
  });
  const auto guarded = median_of(5, [&] {
    return seconds_of([&] {
      for (int i = 0; i < kCalls; ++i)
        seen += guard(rule, {.doing = "surveys", .round = 1, .tensor = "x"}, [](Aggregator& a) { return a.surveys(); });
    });
  });
  std::printf("direct_call_us %.6f\nguarded_call_us %.6f\n", direct * 1e6 / kCalls, guarded * 1e6 / kCalls);
  if (seen != 0) std::puts("this aggregator surveys: name another");
}

}  // namespace

int main(int, char** argv) {
  const fs::path folder = argv[1];
  std::printf("notes_of_100_s %.6f\n", notes_of_100(folder));
  StrategyRegistry registry;
  std::printf("load_all_s %.6f\n", seconds_of([&] { registry.scan({folder, "the benchmark"}); }));
  std::printf("plugins %zu\n", registry.files().size());
  calls(registry, argv[2]);
}
