// One component's checks in a process of its own, so that a plugin that crashes or hangs costs one check and not the report. The
// parent starts this same program again after a check that ended it, from the next one on. Main thread.
#pragma once
#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "conformance/subject.hpp"

namespace hansa::conformance {

enum class Verdict : std::uint8_t { Held, Broken, NotConcerned };
std::string_view name_of(Verdict);

struct Row {
  std::string check, promise;
  Verdict verdict = Verdict::Held;
  std::string why;                      // what was seen, or why it does not concern the component
  std::optional<std::uint64_t> seed{};  // of the smallest input that shows it
  std::string input{};
  double seconds = 0;
};

// In the child: runs the checks from number `first` on, or `only` that one, and writes each to `report` before and after it
// ran. Returns the exit code.
int run_checks(const Subject&, std::size_t first, const std::string& only, const std::filesystem::path& report);

struct ChildCommand {
  std::vector<std::string> arguments;   // the program and what makes it call run_checks, without --first, --report
  std::filesystem::path folder;         // for the report and what the plugin prints
  std::chrono::duration<double> limit;  // of one check
  std::function<void(const std::string& check)> progress = [](const std::string&) {};
};
// In the parent: the rows of all checks. Throws Error when the child cannot be started at all.
std::vector<Row> watch_checks(const ChildCommand&);

}  // namespace hansa::conformance
