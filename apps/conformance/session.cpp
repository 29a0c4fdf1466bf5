#include "conformance/session.hpp"

#include <signal.h>

#include <fstream>
#include <sstream>
#include <thread>

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "conformance/driver.hpp"
#include "processes.hpp"

namespace hansa::conformance {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

void append(const std::filesystem::path& file, const Json& line) {
  std::ofstream(file, std::ios::app) << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
}

Row run_one(const Subject& subject, const Check& check) {
  Row row{check.id, check.promise};
  const auto start = Clock::now();
  try {
    check.run(subject);
  } catch (const Broken& broken) {
    row.verdict = Verdict::Broken;
    row.why = broken.what();
    row.seed = broken.seed;
    row.input = broken.input;
  } catch (const NotConcerned& why) {
    row.verdict = Verdict::NotConcerned;
    row.why = why.what();
  } catch (...) {
    row.verdict = Verdict::Broken;
    row.why = fmt::format("it failed: {}", plain_message());
  }
  row.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return row;
}

Json to_json(const Row& row) {
  Json line{{"check", row.check}, {"promise", row.promise}, {"outcome", static_cast<int>(row.verdict)},
            {"why", row.why},     {"input", row.input},     {"seconds", row.seconds}};
  if (row.seed) line["seed"] = *row.seed;
  return line;
}
Row from_json(const Json& line) {
  Row row{line.at("check"), line.at("promise"), static_cast<Verdict>(line.at("outcome").get<int>()), line.at("why")};
  row.input = line.at("input");
  row.seconds = line.at("seconds");
  if (line.contains("seed")) row.seed = line.at("seed").get<std::uint64_t>();
  return row;
}

struct Report {  // what a child has written so far
  std::vector<Row> rows;
  std::optional<Row> running;  // begun and not ended
  bool complete = false;
};
Report read_report(const std::filesystem::path& file) {
  Report report;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const auto said = Json::parse(line, nullptr, false);
    if (said.is_discarded()) break;  // being written
    if (said.contains("complete")) {
      report.complete = true;
    } else if (said.contains("outcome")) {
      report.rows.push_back(from_json(said));
      report.running.reset();
    } else {
      report.running = Row{said.at("check"), said.at("promise")};
    }
  }
  return report;
}

// What the child wrote before each input that it tried, for a row that it did not live to write.
std::filesystem::path last_input_of(const std::filesystem::path& report) { return report.string() + ".input"; }
void add_last_input(Row& row, const std::filesystem::path& report) {
  std::ifstream in(last_input_of(report));
  std::string line;
  std::getline(in, line);
  const auto said = Json::parse(line, nullptr, false);
  if (said.is_discarded() || said.at("check") != row.check) return;
  row.seed = said.at("seed").get<std::uint64_t>();
  row.input = said.at("input");
}

std::string last_words(const std::filesystem::path& log) {
  std::ifstream in(log);
  std::stringstream all;
  all << in.rdbuf();
  auto text = all.str();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  constexpr std::size_t kMost = 600;
  return text.size() > kMost ? "…" + text.substr(text.size() - kMost) : text;
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::Held: return "holds";
    case Verdict::Broken: return "broken";
    case Verdict::NotConcerned: return "not concerned";
  }
  return "?";
}

int run_checks(const Subject& with, std::size_t first, const std::string& only, const std::filesystem::path& report) {
  at::set_num_threads(1);  // tensors are tiny: threads would only wait for each other
  auto subject = with;
  std::string running;
  std::ofstream last(last_input_of(report));  // its first line counts; hundreds are told, one over the other
  subject.trying = [&](std::uint64_t seed, const std::string& input) {
    const Json line{{"check", running}, {"seed", seed}, {"input", input}};
    last.seekp(0) << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n' << std::flush;
  };
  const auto checks = checks_for(subject);
  for (std::size_t i = first; i < checks.size(); ++i) {
    if (!only.empty() && (checks[i].id != only || first > 0)) continue;  // after a start anew the one has its row
    running = checks[i].id;
    append(report, {{"check", running}, {"promise", checks[i].promise}});
    const auto row = run_one(subject, checks[i]);
    append(report, to_json(row));
    if (checks[i].id == "constructs" && row.verdict != Verdict::Held) break;  // nothing else can be looked at
  }
  append(report, {{"complete", true}});
  return 0;
}

std::vector<Row> watch_checks(const ChildCommand& command) {
  std::vector<Row> rows;
  for (int start = 0;; ++start) {
    const auto report_file = command.folder / fmt::format("report{}", start);
    const auto log = command.folder / fmt::format("log{}", start);
    auto arguments = command.arguments;
    for (const auto& more :
         {std::string("--first"), std::to_string(rows.size()), std::string("--report"), report_file.string()})
      arguments.push_back(more);
    ChildProcess child(arguments, log);
    std::string shown;
    auto since = Clock::now();
    bool hung = false;
    while (!child.poll()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const auto report = read_report(report_file);
      const auto now = report.running ? report.running->check : "";
      if (now != shown) {
        shown = now;
        since = Clock::now();
        if (!now.empty()) command.progress(now);
      }
      if (Clock::now() - since < command.limit) continue;
      hung = true;
      kill(child.pid(), SIGKILL);
      child.wait();
    }
    auto report = read_report(report_file);
    rows.insert(rows.end(), report.rows.begin(), report.rows.end());
    if (report.complete) {
      if (*child.poll() != 0)  // a destructor, or what a sanitiser finds at the end
        rows.push_back({"exit", "The process ends cleanly.", Verdict::Broken,
                        fmt::format("it ended with code {}: {}", *child.poll(), last_words(log))});
      return rows;
    }
    if (!report.running)
      throw Error(fmt::format("the process that checks ended with code {} before it began: {}", *child.poll(),
                              last_words(log)));
    auto& row = *report.running;
    row.verdict = Verdict::Broken;
    row.why = hung ? fmt::format("it did not come back within {} s (--limit)", command.limit.count())
                   : fmt::format("the process ended with code {}: {}", *child.poll(), last_words(log));
    add_last_input(row, report_file);
    rows.push_back(row);
    if (row.check == "constructs") return rows;
  }
}

}  // namespace hansa::conformance
