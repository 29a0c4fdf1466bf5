// What the machine's tests share: a policy, plans, uploads, and a machine over a journal that can be killed and resumed.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "round/machine.hpp"
#include "test.hpp"

namespace hansa::testing {

inline constexpr std::string_view kKey = "a key of a run, for tests only!!";

// Closes when nobody works any more and at least `least` were accepted; aborts when that cannot be reached, or at 100 s.
inline RoundMachine::Decide at_least(std::size_t least) {
  return [least](const RoundStatus& status) {
    if (status.running > 0 && status.seconds < 100) return Next::Wait;
    return status.accepted >= least ? Next::Close : Next::Abort;
  };
}

inline NodeFacts facts(NodeId node) { return {node, 10 * node, 8, 1e6, 0}; }

inline RoundPlan plan_for(const RoundMachine& machine) {
  RoundPlan plan;
  plan.round = machine.next_round();
  plan.attempt = machine.next_attempt();
  plan.base = machine.epoch();
  plan.cohort = machine.registered();
  plan.population = plan.cohort.size();
  plan.expected_cohort = static_cast<double>(plan.population);
  return plan;
}

inline Upload upload_of(NodeId node, Round round) {
  Upload upload;
  upload.size = 100 * node + round;
  upload.checksum = {node, round};
  upload.claims = {10 * node, 1000 * node, 3, 1.5, {{"loss", 2.0 + 0.1 * static_cast<double>(node)}}};
  upload.norm = 0.1 * static_cast<double>(node);
  upload.accepted = true;
  return upload;
}
inline Upload refused_upload(NodeId node, Round round) {
  auto upload = upload_of(node, round);
  upload.accepted = false;
  upload.norm = std::numeric_limits<double>::quiet_NaN();
  upload.reason = "tensor 3 has a NaN";
  return upload;
}

class Bench {  // one machine at a time over one journal file
 public:
  explicit Bench(RoundMachine::Decide decide = at_least(1), RoundMachine::Settings settings = {})
      : decide_(std::move(decide)), settings_(std::move(settings)) {
    settings_.token_key = kKey;
    start();
  }
  void start() {
    machine_.reset();
    journal_ = std::make_unique<Journal>(path(), Durability::Process);
    machine_ = std::make_unique<RoundMachine>(settings_, clock, *journal_, decide_);
  }
  void kill() { start(); }
  RoundMachine& operator*() { return *machine_; }
  RoundMachine* operator->() { return machine_.get(); }
  std::filesystem::path path() const { return directory_.path() / "journal"; }
  void join(std::initializer_list<NodeId> nodes) {
    for (const auto node : nodes) machine_->joined(facts(node));
  }
  FakeClock clock;

 private:
  TemporaryDirectory directory_;
  RoundMachine::Decide decide_;
  RoundMachine::Settings settings_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<RoundMachine> machine_;
};

inline std::string token_of(RoundMachine& machine, NodeId node) {
  const auto work = machine.work_for(node);
  REQUIRE(work);
  return work->token;
}
inline Version version_of(Epoch epoch) { return {epoch, 1000 + epoch, {epoch, 1}}; }

}  // namespace hansa::testing
