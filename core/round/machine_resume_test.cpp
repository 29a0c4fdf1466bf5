// Kills at every point: a whole run is played once, then its journal is cut at every record and at random bytes, a new
// machine goes on from there, and the run must end the same.
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/rng.hpp"
#include "round/machine_test_support.hpp"

using namespace hansa;
using namespace hansa::testing;

namespace {

constexpr Round kRounds = 4;

struct Outcome {
  std::vector<Version> versions;
  std::map<Epoch, RoundMachine::Answers> evaluations;
  std::map<NodeId, std::set<std::string>> applied;  // what each node promoted
  bool operator==(const Outcome&) const = default;
};

// The outside world: nodes, folds, and what each has durably on its side. Its choices depend on round, attempt and node only.
class World {
 public:
  World(std::filesystem::path journal, Outcome before) : path_(std::move(journal)), outcome_(std::move(before)) {}

  // Called after each step: the outcome as the nodes and the disk know it by then.
  std::function<void(const Outcome&)> on_step = [](const Outcome&) {};

  Outcome play() {
    Journal journal(path_, Durability::Process);
    RoundMachine::Settings settings;
    settings.rounds = kRounds;
    settings.token_key = kKey;
    RoundMachine machine(settings, clock_, journal, at_least(3));
    for (const NodeId node : {4, 2, 9, 6}) step([&] { machine.joined(facts(node)); });
    while (machine.phase() != Phase::Finished) {
      REQUIRE(machine.phase() != Phase::Failed);
      go_on(machine);
    }
    for (const auto node : {2, 4, 6, 9}) hear(machine, static_cast<NodeId>(node));
    return outcome_;
  }

 private:
  template <class Call>
  void step(Call call) {
    call();
    on_step(outcome_);
  }

  void go_on(RoundMachine& machine) {
    switch (machine.phase()) {
      case Phase::Idle: return next(machine);
      case Phase::Collecting: return collect(machine);
      case Phase::Folding: return fold(machine);
      case Phase::Evaluating: return evaluate(machine);
      case Phase::Finished:
      case Phase::Failed: return;
    }
  }

  void next(RoundMachine& machine) {
    const bool evaluate_now = machine.epoch() % 2 == 0 && !machine.evaluation_of(machine.epoch());
    if (evaluate_now) return step([&] { machine.open_evaluation(machine.epoch(), {2, 4, 6, 9}); });
    if (machine.rounds_done()) return step([&] { machine.finish(); });
    auto plan = plan_for(machine);
    std::erase_if(plan.cohort, [&](const NodeFacts& f) { return f.node == 9 && plan.round % 2 == 0; });
    if (plan.round == 3) {  // an empty draw
      plan.cohort.clear();
      plan.sampling_rate = 0.1;
    }
    step([&] { machine.open(plan); });
  }

  void collect(RoundMachine& machine) {
    const auto plan = machine.plan();
    for (const auto& member : plan.cohort) {
      const auto work = machine.work_for(member.node);
      if (!work) continue;
      hear(machine, member.node);
      machine.heartbeat(work->token, {Progress::Stage::Training, 1, 2});
      // In round 2, attempt 1, one is refused and too few are left: that attempt is given up.
      const bool refuse = plan.round == 2 && plan.attempt == 1 && member.node == 4;
      const auto upload = refuse ? refused_upload(member.node, plan.round) : upload_of(member.node, plan.round);
      step([&] { machine.received(work->token, upload); });
    }
    const auto verdict = machine.tick();
    REQUIRE(verdict != Next::Wait);
    if (verdict == Next::Close) return step([&] { machine.close(); });
    step([&] { machine.abort("too few"); });
  }

  void fold(RoundMachine& machine) {
    std::string text;  // stands for the new version: all that went into it, in order
    for (const auto& [node, upload] : machine.cohort()) text += std::to_string(node) + upload.checksum.hex();
    text += outcome_.versions.empty() ? "" : outcome_.versions.back().checksum.hex();
    const Version version{machine.plan().base + 1, text.size(), xxh3_128(std::as_bytes(std::span(text)))};
    step([&] {
      machine.released(version);
      outcome_.versions.push_back(version);
    });
  }

  void evaluate(RoundMachine& machine) {
    for (const NodeId node : {2, 4, 6, 9}) {
      const auto work = machine.work_for(node);
      if (!work) continue;
      hear(machine, node);
      const auto value = static_cast<double>(node) + 0.1 * static_cast<double>(work->base);
      step([&] { machine.evaluated(work->token, {node, 1, 0, 0, {{"loss", value}}}); });
    }
    REQUIRE(machine.tick() == Next::Close);
    const auto epoch = machine.epoch();
    step([&] { outcome_.evaluations[epoch] = machine.close_evaluation(); });
  }

  void hear(RoundMachine& machine, NodeId node) {
    for (const auto& settled : machine.settled(node)) {
      if (settled.applied) outcome_.applied[node].insert(settled.token);
    }
  }

  std::filesystem::path path_;
  FakeClock clock_;
  Outcome outcome_;
};

struct Undisturbed {
  std::string journal;                       // its bytes at the end
  std::map<std::uint64_t, Outcome> by_size;  // what was durable outside when the journal had this length
  Outcome end;
};

Undisturbed play_undisturbed() {
  TemporaryDirectory dir;
  const auto path = dir.path() / "journal";
  Undisturbed run;
  World world(path, {});
  world.on_step = [&](const Outcome& now) { run.by_size.insert_or_assign(std::filesystem::file_size(path), now); };
  run.end = world.play();
  run.journal = read_file(path);
  return run;
}

// What the outside world had when the journal was `size` bytes long. Versions whose release is not in the journal are folded
// again, so the world knows exactly those that the journal knows.
Outcome world_at(const Undisturbed& run, std::uint64_t size) {
  const auto after = run.by_size.upper_bound(size);
  return after == run.by_size.begin() ? Outcome{} : std::prev(after)->second;
}

void require_same_end(const Undisturbed& run, std::size_t cut) {
  TemporaryDirectory dir;
  const auto path = dir.path() / "journal";
  std::ofstream(path, std::ios::binary) << run.journal.substr(0, cut);
  INFO("journal cut at byte " << cut << " of " << run.journal.size());
  REQUIRE(World(path, world_at(run, cut)).play() == run.end);
}

}  // namespace

TEST_CASE(
    "a coordinator killed at any record or byte of its journal ends with the same versions, answers and outcomes") {
  const auto run = play_undisturbed();
  REQUIRE(run.end.versions.size() == kRounds);
  REQUIRE(run.end.evaluations.size() == 3);
  REQUIRE(run.end.applied.at(9).size() == 1);  // of the even rounds it was no part, and round 3 was empty
  REQUIRE(run.end.applied.at(4).size() == 3);  // also of the second attempt of round 2
  for (std::size_t at = 0; at != std::string::npos; at = run.journal.find('\n', at + 1)) {
    require_same_end(run, at);
    if (at > 0) require_same_end(run, at + 1);
  }
  SplitMix64 rng(11);
  for (int i = 0; i < 150; ++i) require_same_end(run, rng.below(run.journal.size()));
}

TEST_CASE("An open round's plan is the same after a kill, adjacency and all") {
  Bench bench;
  bench.join({3, 5, 8});
  auto plan = plan_for(*bench);
  plan.cohort.erase(plan.cohort.begin());
  plan.sampling_rate = 0.5;
  plan.expected_cohort = 1.5;
  plan.adjacency = Adjacency::ReplaceOne;
  bench->open(plan);
  bench.kill();
  const auto& after = bench->plan();
  CHECK(after.adjacency == Adjacency::ReplaceOne);
  CHECK(after.sampling_rate == plan.sampling_rate);
  CHECK(after.expected_cohort == plan.expected_cohort);
  CHECK(after.population == plan.population);
  REQUIRE(after.cohort.size() == 2);
  CHECK(after.cohort[0].node == 5);
  CHECK(after.cohort[1].node == 8);
}

TEST_CASE("a coordinator killed again and again while it resumes still ends the same") {
  const auto run = play_undisturbed();
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SplitMix64 rng(seed);
    TemporaryDirectory dir;
    const auto path = dir.path() / "journal";
    struct Killed {};
    Outcome known;
    for (bool done = false; !done;) {
      World world(path, known);
      auto steps = 1 + rng.below(6);
      world.on_step = [&](const Outcome& now) {
        known = now;
        if (--steps == 0) throw Killed{};
      };
      try {
        known = world.play();
        done = true;
      } catch (const Killed&) {
      }
    }
    INFO("seed " << seed);
    REQUIRE(known == run.end);
  }
}
