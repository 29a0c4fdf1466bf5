#include "round/machine_test_support.hpp"

#include "full_disk.hpp"

using namespace hansa;
using namespace hansa::testing;

TEST_CASE("a round goes from open to released, and the cohort is folded in ascending node order") {
  Bench bench;
  auto& machine = *bench;
  bench.join({7, 3, 5});
  CHECK(machine.phase() == Phase::Idle);
  CHECK_FALSE(machine.work_for(3));
  machine.open(plan_for(machine));
  CHECK(machine.phase() == Phase::Collecting);
  for (const NodeId node : {7, 5, 3}) {
    const auto work = machine.work_for(node);
    REQUIRE(work);
    CHECK(work->round == 1);
    CHECK(work->base == 0);
    CHECK(machine.tick() == Next::Wait);
    const auto receipt = machine.received(work->token, upload_of(node, 1));
    REQUIRE(std::holds_alternative<Receipt>(receipt));
    CHECK(std::get<Receipt>(receipt) == Receipt{1, true, ""});
    CHECK_FALSE(machine.work_for(node));
  }
  CHECK(machine.tick() == Next::Close);
  const auto& cohort = machine.close();
  REQUIRE(cohort.size() == 3);
  CHECK(cohort[0].node == 3);
  CHECK(cohort[2].node == 7);
  CHECK(cohort[1].upload == upload_of(5, 1));
  machine.released(version_of(1));
  CHECK(machine.phase() == Phase::Idle);
  CHECK(machine.epoch() == 1);
  CHECK(machine.rounds_done());
  CHECK(machine.registered()[0].last_seen == 1);
  machine.finish();
  CHECK(machine.phase() == Phase::Finished);
}

TEST_CASE("a node that asks twice, before and after a restart of the coordinator, gets the same token") {
  Bench bench;
  bench.join({1, 2});
  bench->open(plan_for(*bench));
  const auto token = token_of(*bench, 1);
  CHECK(token_of(*bench, 1) == token);
  bench.kill();
  CHECK(bench->phase() == Phase::Collecting);
  CHECK(token_of(*bench, 1) == token);
  const auto redeemed = bench->redeem(token);
  REQUIRE(std::holds_alternative<RoundMachine::Redeemed>(redeemed));
  CHECK(std::get<RoundMachine::Redeemed>(redeemed).work == *bench->work_for(1));
  CHECK(token_of(*bench, 2) != token);
}

TEST_CASE("a second commit of the same work gives the first receipt, also after a restart") {
  Bench bench;
  bench.join({1, 2});
  bench->open(plan_for(*bench));
  const auto token = token_of(*bench, 1);
  const auto first = std::get<Receipt>(bench->received(token, refused_upload(1, 1)));
  CHECK_FALSE(first.accepted);
  CHECK(std::get<Receipt>(bench->received(token, upload_of(1, 1))) == first);
  bench.kill();
  CHECK(std::get<Receipt>(bench->received(token, upload_of(1, 1))) == first);
  CHECK(std::get<RoundMachine::Redeemed>(bench->redeem(token)).receipt == first);
  CHECK(bench->status().cohort.refused == 1);
}

TEST_CASE("tokens of a past round are stale, changed ones unknown, and none works after the end") {
  Bench bench;
  bench.join({1});
  bench->open(plan_for(*bench));
  const auto old = token_of(*bench, 1);
  auto code = [&](std::string_view token) { return std::get<Refusal>(bench->received(token, upload_of(1, 1))).code; };
  for (std::size_t i = 0; i < old.size(); ++i) {
    auto forged = old;
    forged[i] = forged[i] == '2' ? '3' : '2';
    REQUIRE(code(forged) == Refusal::Code::UnknownToken);
  }
  for (const auto* junk : {"", "t", "t-", "t-1-1-1", "t-99999999999999999999-1-1-aa", "\xff\xfe-1"}) {
    CHECK(code(junk) == Refusal::Code::UnknownToken);
  }
  CHECK(code(old + "0") == Refusal::Code::UnknownToken);
  bench->abort("a test wants it");
  CHECK(code(old) == Refusal::Code::StaleRound);
  bench->open(plan_for(*bench));
  const auto now = token_of(*bench, 1);
  CHECK(now != old);
  CHECK(code(old) == Refusal::Code::StaleRound);
  bench->received(now, upload_of(1, 1));
  bench->close();
  bench->released(version_of(1));
  CHECK(code(now) == Refusal::Code::StaleRound);
  CHECK(bench->heartbeat(now, {}).stop);
  bench->finish();
  CHECK(code(now) == Refusal::Code::Finished);
}

TEST_CASE("an upload that comes while the round folds is stale, but a receipt can still be repeated") {
  Bench bench;
  bench.join({1, 2});
  bench->open(plan_for(*bench));
  const auto one = token_of(*bench, 1), two = token_of(*bench, 2);
  bench->received(one, upload_of(1, 1));
  bench->close();
  CHECK(std::get<Receipt>(bench->received(one, upload_of(1, 1))).accepted);
  CHECK(std::get<Refusal>(bench->received(two, upload_of(2, 1))).code == Refusal::Code::StaleRound);
  CHECK(std::get<Refusal>(bench->redeem(two)).code == Refusal::Code::StaleRound);
  CHECK(bench->heartbeat(two, {}).stop);
  CHECK_FALSE(bench->heartbeat(one, {}).stop);
}

TEST_CASE("a node without a sign of life is lost when its lease ends, and comes back with the same token") {
  Bench bench(at_least(2));
  bench.join({1, 2});
  bench->open(plan_for(*bench));
  const auto one = token_of(*bench, 1), two = token_of(*bench, 2);
  bench->received(one, upload_of(1, 1));
  bench.clock.advance(20);
  CHECK_FALSE(bench->heartbeat(two, {Progress::Stage::Training, 1, 2}).stop);
  bench.clock.advance(20);
  CHECK(bench->status().lost == 0);  // 40 s since the opening, 20 since the heartbeat
  CHECK(bench->next_timer() == Approx(bench.clock.now() + 10).margin(0.01));
  bench.clock.advance(bench->next_timer() - bench.clock.now());
  CHECK(bench->status().lost == 1);
  CHECK(bench->tick() == Next::Abort);  // this policy gives up; the machine itself waits for whatever the policy says
  CHECK(std::isinf(bench->next_timer()));
  bench->disconnected(2);
  CHECK(bench->connected() == 1);
  bench.join({2});
  CHECK(bench->status().cohort.running == 1);
  CHECK(token_of(*bench, 2) == two);
  bench->received(two, upload_of(2, 1));
  CHECK(bench->tick() == Next::Close);
}

TEST_CASE("the deadline of the policy is a timer, and has certainly passed when it fires") {
  RoundMachine::Settings settings;
  settings.deadline_seconds = 100;
  settings.lease_seconds = std::numeric_limits<double>::infinity();
  Bench bench(at_least(1), settings);
  bench.join({1, 2});
  bench.clock.advance(0.1);
  bench->open(plan_for(*bench));
  bench->received(token_of(*bench, 2), upload_of(2, 1));
  CHECK(bench->tick() == Next::Wait);
  bench.clock.advance(bench->next_timer() - bench.clock.now());
  CHECK(bench->tick() == Next::Close);
  CHECK(bench->close().size() == 1);
  bench->released(version_of(1));
  CHECK(std::isinf(bench->next_timer()));
  REQUIRE(bench->settled(1).size() == 1);
  CHECK_FALSE(bench->settled(1)[0].applied);
  CHECK(bench->settled(2)[0].applied);
}

TEST_CASE("outcomes are repeated until the node shows later work, also after a restart") {
  RoundMachine::Settings settings;
  settings.rounds = 3;
  Bench bench(at_least(1), settings);
  bench.join({1, 2});
  bench->open(plan_for(*bench));
  const auto one = token_of(*bench, 1), two = token_of(*bench, 2);
  bench->received(one, upload_of(1, 1));
  bench->received(two, refused_upload(2, 1));
  CHECK(bench->settled(1).empty());  // a receipt is not an application
  bench->close();
  bench->released(version_of(1));
  const Settled applied{one, true, ""}, discarded{two, false, "tensor 3 has a NaN"};
  CHECK(bench->settled(1) == std::vector{applied});
  bench.kill();
  CHECK(bench->settled(1) == std::vector{applied});
  CHECK(bench->settled(2) == std::vector{discarded});
  bench->open(plan_for(*bench));
  const auto next = token_of(*bench, 1);
  CHECK(bench->settled(1) == std::vector{applied});  // the answer may be lost on the way
  bench->heartbeat(next, {});
  CHECK(bench->settled(1).empty());
  bench.kill();
  CHECK(bench->settled(1) == std::vector{applied});  // heartbeats are not journalled; nodes take repeats
  bench->received(next, upload_of(1, 2));
  bench.kill();
  CHECK(bench->settled(1).empty());
}

TEST_CASE("an abort discards the attempt's uploads and starts the next attempt") {
  Bench bench;
  bench.join({1});
  bench->open(plan_for(*bench));
  const auto token = token_of(*bench, 1);
  bench->received(token, upload_of(1, 1));
  bench->close();
  bench->abort("the fold failed");
  CHECK(bench->phase() == Phase::Idle);
  CHECK(bench->next_round() == 1);
  CHECK(bench->next_attempt() == 2);
  REQUIRE(bench->settled(1).size() == 1);
  CHECK_FALSE(bench->settled(1)[0].applied);
  CHECK_THAT(bench->settled(1)[0].reason, Catch::Contains("the fold failed"));
  bench.kill();
  CHECK(bench->next_attempt() == 2);
}

TEST_CASE(
    "an attempt that cannot be planned counts like one that was opened, and leaves earlier outcomes as they are") {
  Bench bench;
  bench.join({1});
  bench->open(plan_for(*bench));
  bench->received(token_of(*bench, 1), upload_of(1, 1));
  bench->abort("the fold failed");
  bench->abort("the selector failed");
  CHECK(bench->phase() == Phase::Idle);
  CHECK(bench->next_attempt() == 3);
  REQUIRE(bench->settled(1).size() == 1);
  CHECK_THAT(bench->settled(1)[0].reason, Catch::Contains("the fold failed"));
  bench.kill();
  CHECK(bench->next_attempt() == 3);
  bench->abort("the selector failed");
  bench->abort("the selector failed");
  CHECK(bench->phase() == Phase::Idle);
  bench->abort("the selector failed");  // the third in this process
  CHECK(bench->phase() == Phase::Failed);
  CHECK_THAT(bench->failure(), Catch::Contains("round 1 failed 3 times") && Catch::Contains("the selector failed"));
}

TEST_CASE("after too many attempts of one round the run fails with a sentence, and a resume may try again") {
  RoundMachine::Settings settings;
  settings.max_attempts = 2;
  Bench bench(at_least(1), settings);
  bench.join({1});
  for (int i = 0; i < 2; ++i) {
    CHECK(bench->phase() == Phase::Idle);
    bench->open(plan_for(*bench));
    bench->abort("nobody answered");
  }
  CHECK(bench->phase() == Phase::Failed);
  CHECK_THAT(bench->failure(), Catch::Contains("round 1 failed 2 times") && Catch::Contains("nobody answered"));
  CHECK_FALSE(bench->work_for(1));
  bench.kill();
  CHECK(bench->phase() == Phase::Idle);
  CHECK(bench->next_attempt() == 3);
}

TEST_CASE("a sampled round may be empty, and closes at once; one that asks everybody may not") {
  Bench bench(at_least(1));
  bench.join({1});
  auto plan = plan_for(*bench);
  plan.cohort.clear();
  CHECK_THROWS_WITH(bench->open(plan), Catch::Contains("nobody to ask"));
  plan.sampling_rate = 0.01;
  bench->open(plan);
  CHECK(bench->next_timer() <= bench.clock.now());
  CHECK(bench->tick() == Next::Close);
  bench.kill();
  CHECK(bench->tick() == Next::Close);
  CHECK(bench->close().empty());
  bench->released(version_of(1));
  CHECK(bench->epoch() == 1);
}

TEST_CASE("evaluations collect answers, repeat after a restart, and end without those that are lost") {
  Bench bench;
  bench.join({1, 2, 3});
  bench->open_evaluation(0, {3, 1, 2});
  CHECK(bench->phase() == Phase::Evaluating);
  const auto one = token_of(*bench, 1), two = token_of(*bench, 2);
  CHECK(bench->work_for(1)->task == WorkItem::Task::Evaluate);
  const Claims claims{100, 2000, 0, 1, {{"loss", 3.25}, {"bits_per_byte", 1.1}}};
  CHECK_FALSE(bench->evaluated(one, claims));
  CHECK_FALSE(bench->evaluated(one, {}));  // the first answer stands
  CHECK_FALSE(bench->work_for(1));
  CHECK(std::get<Refusal>(bench->received(two, upload_of(2, 1))).code == Refusal::Code::BadPayload);
  bench.kill();
  CHECK(bench->phase() == Phase::Evaluating);
  CHECK_FALSE(bench->work_for(1));
  CHECK(token_of(*bench, 2) == two);
  CHECK_FALSE(bench->evaluated(two, claims));
  CHECK(bench->tick() == Next::Wait);
  bench.clock.advance(31);  // node 3 never asks
  CHECK(bench->tick() == Next::Close);
  CHECK(bench->close_evaluation().size() == 2);
  CHECK(bench->evaluated(two, claims)->code == Refusal::Code::StaleRound);
  bench.kill();
  REQUIRE(bench->evaluation_of(0));
  CHECK(bench->evaluation_of(0)->at(1) == claims);
  CHECK(bench->evaluation_of(1) == nullptr);
  CHECK(bench->phase() == Phase::Idle);
}

TEST_CASE("an evaluation with a time limit ends at it") {
  RoundMachine::Settings settings;
  settings.lease_seconds = std::numeric_limits<double>::infinity();
  settings.evaluation_seconds = 60;
  Bench bench(at_least(1), settings);
  bench.join({1});
  bench->open_evaluation(0, {1});
  CHECK(bench->tick() == Next::Wait);
  bench.clock.advance(bench->next_timer() - bench.clock.now());
  CHECK(bench->tick() == Next::Close);
  CHECK(bench->close_evaluation().empty());
}

TEST_CASE("a finished run stays finished, unless it is given more rounds") {
  TemporaryDirectory dir;
  FakeClock clock;
  RoundMachine::Settings settings;
  settings.token_key = kKey;
  settings.rounds = 1;
  const auto phase_with = [&](Round rounds) {
    Journal journal(dir.path() / "journal", Durability::Process);
    settings.rounds = rounds;
    return RoundMachine(settings, clock, journal, at_least(1)).phase();
  };
  {
    Journal journal(dir.path() / "journal", Durability::Process);
    RoundMachine machine(settings, clock, journal, at_least(1));
    machine.joined(facts(1));
    machine.open(plan_for(machine));
    machine.received(token_of(machine, 1), upload_of(1, 1));
    machine.close();
    machine.released(version_of(1));
    machine.finish();
  }
  CHECK(phase_with(1) == Phase::Finished);
  CHECK(phase_with(2) == Phase::Idle);
}

TEST_CASE("calls that do not fit the phase and plans that do not fit the run are refused") {
  Bench bench;
  bench.join({1, 2});
  CHECK_THROWS_WITH(bench->close(), Catch::Contains("idle") && Catch::Contains("collecting"));
  CHECK_THROWS_AS(bench->plan(), Error);
  CHECK_THROWS_AS(bench->open_evaluation(1, {1}), Error);
  CHECK_THROWS_AS(bench->open_evaluation(0, {9}), Error);
  const auto good = plan_for(*bench);
  const auto refuses = [&](auto change) {
    auto plan = good;
    change(plan);
    CHECK_THROWS_AS(bench->open(plan), Error);
  };
  refuses([](RoundPlan& p) { p.round = 2; });
  refuses([](RoundPlan& p) { p.attempt = 2; });
  refuses([](RoundPlan& p) { p.base = 1; });
  refuses([](RoundPlan& p) { p.cohort.push_back(facts(9)); });
  refuses([](RoundPlan& p) { std::swap(p.cohort[0], p.cohort[1]); });
  refuses([](RoundPlan& p) { p.cohort[1] = p.cohort[0]; });
  bench->open(good);
  CHECK_THROWS_AS(bench->open(good), Error);
  CHECK_THROWS_AS(bench->released(version_of(1)), Error);
  CHECK_THROWS_AS(bench->finish(), Error);
  bench->close();
  CHECK_THROWS_AS(bench->released(version_of(3)), Error);
}

TEST_CASE("a full disk leaves the machine as it was, and the same call succeeds later") {
  Bench bench;
  bench.join({1});
  const auto with_full_disk = [](auto call) {
    FullDisk full(10);
    CHECK_THROWS_AS(call(), DiskFull);
  };
  with_full_disk([&] { bench->joined(facts(2)); });
  CHECK_FALSE(bench->is_registered(2));
  const auto plan = plan_for(*bench);
  with_full_disk([&] { bench->open(plan); });
  CHECK(bench->phase() == Phase::Idle);
  bench->open(plan);
  const auto token = token_of(*bench, 1);
  with_full_disk([&] { bench->received(token, upload_of(1, 1)); });
  CHECK(bench->status().cohort.accepted == 0);
  CHECK(std::get<Receipt>(bench->received(token, upload_of(1, 1))).accepted);
  with_full_disk([&] { bench->close(); });
  CHECK(bench->close().size() == 1);
  with_full_disk([&] { bench->released(version_of(1)); });
  bench.kill();
  CHECK(bench->phase() == Phase::Folding);
  bench->released(version_of(1));
}
