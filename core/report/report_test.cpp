#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "full_disk.hpp"
#include "report/events.hpp"
#include "report/metrics.hpp"
#include "report/node_notes.hpp"
#include "report/plot.hpp"
#include "report/progress.hpp"
#include "report/quotients.hpp"
#include "report/table.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

std::size_t lines_in(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

class Screen {  // what was written to a file descriptor
 public:
  Screen() : fd_(open_file(dir_.path() / "out", O_RDWR | O_CREAT)) {}
  int fd() const { return fd_.get(); }
  std::string text() const { return read_file(dir_.path() / "out"); }

 private:
  TemporaryDirectory dir_;
  FileDescriptor fd_;
};

}  // namespace

TEST_CASE("a log keeps whole lines over a kill and is cut back to a checkpoint") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "log";
  std::uint64_t checkpoint = 0;
  {
    LineFile file(path);
    file.append("one");
    checkpoint = file.offset();
    file.append("two\nstill two");
  }
  std::ofstream(path, std::ios::app) << std::string(9000, 'x');  // a torn line, longer than one block
  {
    LineFile file(path);
    CHECK(read_file(path) == "one\ntwo still two\n");
    file.append("three");
    file.truncate_to(1'000'000);
    CHECK(lines_in(read_file(path)) == 3);
    file.truncate_to(checkpoint);
    file.append("four");
  }
  CHECK(read_file(path) == "one\nfour\n");
}

TEST_CASE("a full disk leaves a log without the line") {
  TemporaryDirectory dir;
  LineFile file(dir.path() / "log");
  file.append("one");
  {
    FullDisk full(2);
    CHECK_THROWS_AS(file.append("two"), DiskFull);
  }
  file.append("three");
  CHECK(read_file(dir.path() / "log") == "one\nthree\n");
}

TEST_CASE("events are JSON lines with their fields in order") {
  TemporaryDirectory dir;
  EventLog log(dir.path() / "events.jsonl", NodeDetail::Written);
  log.append(
      "round_closed",
      {{"round", 3u}, {"loss", 2.5}, {"bad", std::nan("")}, {"why", "a \"quote\"\n\xff"}, {"ok", true}, {"n", -1}});
  log.append_node("joined", "de");
  const auto text = read_file(dir.path() / "events.jsonl");
  CHECK_THAT(text, Catch::Contains(R"("event":"round_closed","round":3,"loss":2.5,"bad":"nan","why":"a \"quote\"\n)"));
  CHECK_THAT(text, Catch::Contains(R"("ok":true,"n":-1})"));
  CHECK_THAT(text, Catch::Contains(R"("event":"joined","node":"de"})"));
  CHECK_THAT(text, Catch::Matches("(.|\n)*\"time\":\"20[0-9-]+T[0-9:.]+Z\"(.|\n)*"));
  CHECK(lines_in(text) == 2);
}

TEST_CASE("a private run writes nothing about single nodes") {
  TemporaryDirectory dir;
  EventLog log(dir.path() / "events.jsonl", NodeDetail::Withheld);
  MetricsFile metrics(dir.path() / "metrics.csv", NodeDetail::Withheld);
  log.append_node("received", "alice", {{"norm", 1.0}});
  log.append("released", {{"round", 1}});
  metrics.add_node(1, "alice", "loss", 2);
  metrics.add(1, "loss", 3);
  const auto text = read_file(dir.path() / "events.jsonl") + read_file(dir.path() / "metrics.csv");
  CHECK_THAT(text, !Catch::Contains("alice"));
  CHECK(lines_in(text) == 3);
}

TEST_CASE("metrics are long-format CSV, with one header whatever happens") {
  TemporaryDirectory dir;
  const auto path = dir.path() / "metrics.csv";
  {
    MetricsFile metrics(path, NodeDetail::Written);
    metrics.add_node(1, "de", "loss", 0.1);
    metrics.add(1, "a,\"b\"", 1e300);
  }
  MetricsFile metrics(path, NodeDetail::Written);
  CHECK(read_file(path) == "round,node,metric,value\n1,de,loss,0.1\n1,,\"a,\"\"b\"\"\",1e+300\n");
  metrics.truncate_to(0);
  CHECK(read_file(path) == "round,node,metric,value\n");
}

TEST_CASE("plain progress says little, and says the end") {
  FakeClock clock;
  Screen screen;
  {
    ProgressBar bar(clock, "federate", 100, "rounds", screen.fd(), Output::Plain);
    for (std::uint64_t i = 1; i <= 100; ++i) {
      clock.advance(1);
      bar.update(i, "loss 2.5");
    }
    bar.finish("loss 2.4");
  }
  const auto text = screen.text();
  CHECK(lines_in(text) == 1 + 9 + 1);
  CHECK_THAT(text, Catch::Contains("federate 50/100 rounds 50 % · loss 2.5") && Catch::Contains("0:51 left"));
  CHECK_THAT(text, Catch::EndsWith("federate: 100 rounds in 1:40 · loss 2.4\n"));
  CHECK_THAT(text, !Catch::Contains("\r"));
}

TEST_CASE("plain progress of a fast stage is its first and its last line") {
  FakeClock clock;
  Screen screen;
  ProgressBar bar(clock, "encode", 1000, "tensors", screen.fd(), Output::Plain);
  for (std::uint64_t i = 1; i <= 1000; ++i) bar.update(i);
  bar.finish();
  CHECK(screen.text() == "encode: 1000 tensors\nencode: 1000 tensors in 0:00\n");
}

TEST_CASE("progress on a terminal redraws one line, no more than ten times a second") {
  FakeClock clock;
  Screen screen;
  {
    ProgressBar bar(clock, "train", 10'000, "steps", screen.fd(), Output::Terminal);
    for (std::uint64_t i = 1; i <= 5000; ++i) {
      clock.advance(0.001);
      bar.update(i);
    }
  }
  const auto text = screen.text();
  CHECK(std::count(text.begin(), text.end(), '\r') <= 51);
  CHECK(lines_in(text) == 1);  // left at the end, so that an error starts on its own line
  CHECK_THAT(text, Catch::Contains("█") && Catch::Contains("\x1b[K"));
}

TEST_CASE("bars and durations at their ends") {
  CHECK(bar_text(0, 4) == "░░░░");
  CHECK(bar_text(0.5, 4) == "██░░");
  CHECK(bar_text(2, 4) == "████");
  CHECK(duration_text(65) == "1:05");
  CHECK(duration_text(3661) == "1:01:01");
  CHECK(duration_text(-1) == "0:00");
  CHECK(duration_text(INFINITY) == "?");
}

TEST_CASE("a table aligns by characters, not bytes") {
  Table table({{"silo", Table::Align::Left}, {"base"}, {"federated"}});
  table.row({"de", "2.10", "1.90"});
  table.row({"mañana", "12.10"});
  table.rule();
  table.row({"average", "7.10", "1.90"});
  CHECK(table.text() ==
        "silo      base  federated\n"
        "─────────────────────────\n"
        "de        2.10       1.90\n"
        "mañana   12.10\n"
        "─────────────────────────\n"
        "average   7.10       1.90\n");
  CHECK_THROWS_AS(table.row({"a", "b", "c", "d"}), Error);
}

TEST_CASE("a chart is drawn by gnuplot, with titles that could be commands") {
  TemporaryDirectory dir;
  LinePlot plot{"Held-out loss; it's `rm -rf` \\ \"x\" & <b>", "round", "nats per byte", {}};
  plot.series.push_back(
      {"de_1 'federated'", {{1, 2.5}, {2, std::nan("")}, {3, 2.1}, {4, 2.0}}, PlotSeries::Line::Solid, 0});
  plot.series.push_back({"de base", {{0, 2.4}}, PlotSeries::Line::Dotted, 0});
  const auto svg = dir.path() / "-loss it's.svg";
  const auto refused = draw_svg(plot, svg);
  INFO(refused.value_or(""));
  REQUIRE_FALSE(refused);
  const auto picture = read_file(svg);
  CHECK_THAT(picture, Catch::Contains("<svg"));
  CHECK_THAT(picture, Catch::Contains("de_1 'federated'") || Catch::Contains("de_1 &#39;federated&#39;"));
  CHECK_THAT(picture, Catch::Contains("rm -rf"));
  CHECK(std::filesystem::exists(dir.path() / "-loss it's.gnuplot"));
}

TEST_CASE("a chart that cannot be drawn gives a sentence") {
  TemporaryDirectory dir;
  LinePlot plot{"t", "x", "y", {{"s", {{1, std::nan("")}}, PlotSeries::Line::Solid, 0}}};
  CHECK_THAT(draw_svg(plot, dir.path() / "a.svg").value(), Catch::Contains("nothing to draw"));
  plot.series[0].points = {{1, 1}, {2, 2}};
  const std::string path = getenv("PATH");
  setenv("PATH", "/nowhere", 1);
  const auto refused = draw_svg(plot, dir.path() / "a.svg");
  setenv("PATH", path.c_str(), 1);
  CHECK_THAT(refused.value(), Catch::Contains("gnuplot is not installed"));
  CHECK_THAT(draw_svg(plot, dir.path() / "missing" / "a.svg").value(), Catch::Contains("missing"));
}

TEST_CASE("sums of silos add up, and quotients are those of the whole") {
  Sums all;
  add(all, {{"nats", 30}, {"tokens", 10}, {"bytes", 20}, {"documents", 2}, {"correct", 4}});
  add(all, {{"nats", 10}, {"tokens", 30}, {"bytes", 60}, {"documents", 3}, {"correct", 16}});
  CHECK(quotients(all) == std::map<std::string, double>{{"correct_per_label", 0.5}, {"nats_per_byte", 0.5}});
  CHECK(quotients({{"nats", 8}, {"tokens", 4}}) == std::map<std::string, double>{{"nats_per_label", 2}});
  CHECK(quotients({{"nats", 0}, {"bytes", 0}}).empty());
}

TEST_CASE("what single nodes came to is read back from the run's own files") {
  TemporaryDirectory dir;
  const auto metrics = dir.path() / "metrics.csv", events = dir.path() / "events.jsonl";
  CHECK(curves_of(metrics, "loss").empty());
  CHECK(given_up(events).empty());
  MetricsFile file(metrics, NodeDetail::Written);
  file.add(1, "loss", 9);
  file.add_node(1, "de", "loss", 3);
  file.add_node(1, "de", "loss_first", 4);
  file.add_node(2, "de", "loss", 2.5);
  file.add(2, "loss.public", 1.5);
  file.add_node(2, "it", "records_skipped", 7);
  CHECK(curves_of(metrics, "loss") == Curves{{"de", {{1, 3}, {2, 2.5}}}, {"public", {{2, 1.5}}}});
  CHECK(counts_of(metrics, "records_skipped") == std::map<std::string, std::uint64_t>{{"it", 7}});

  EventLog log(events, NodeDetail::Written);
  log.append("round_opened", {{"round", 2}});
  log.append_node("work_abandoned", "it", {{"round", 2}, {"reason", "training diverged: \"why\""}});
  const auto found = given_up(events);
  REQUIRE(found.size() == 1);
  CHECK(found[0].node == "it");
  CHECK(found[0].round == 2);
  CHECK(found[0].reason == "training diverged: \"why\"");
}
