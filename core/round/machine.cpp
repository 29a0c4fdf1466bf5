#include "round/machine.hpp"

#include <algorithm>
#include <stdexcept>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa {
namespace {

constexpr double kAfterTimer =
    1e-3;  // so that a comparison of rounded seconds has certainly turned when the timer fires
constexpr std::string_view kNothingArrived = "no upload arrived before the round closed";

std::vector<NodeId> ids_of(const std::vector<NodeFacts>& cohort) {
  std::vector<NodeId> ids;
  for (const auto& facts : cohort) ids.push_back(facts.node);
  return ids;
}

}  // namespace

std::string_view name_of(Phase phase) {
  switch (phase) {
    case Phase::Idle: return "idle";
    case Phase::Collecting: return "collecting";
    case Phase::Folding: return "folding";
    case Phase::Evaluating: return "evaluating";
    case Phase::Finished: return "finished";
    case Phase::Failed: return "failed";
  }
  return "?";
}

RoundMachine::RoundMachine(Settings settings, const Clock& clock, Journal& journal, Decide decide)
    : settings_(std::move(settings)), clock_(clock), journal_(journal), decide_(std::move(decide)) {
  if (settings_.token_key.empty()) throw Error("the round machine needs a key for its work tokens");
  std::size_t read = 0;
  try {
    for (const auto& text : journal_.take_records()) {
      ++read;
      std::visit([this](const auto& record) { apply(record); }, records::from_json(text));
    }
  } catch (const std::logic_error& why) {  // a record about a node or round that no record before it opened
    throw Error(fmt::format(
        "{}: record {} does not follow from those before it ({}). Restore the file from a copy, or start again "
        "in a new run directory",
        journal_.path().string(), read, why.what()));
  }
  // Resuming is a person's decision to try again, with a fresh allowance; and a finished run may be given more rounds.
  aborts_here_ = 0;
  if (phase_ == Phase::Finished && !rounds_done()) phase_ = Phase::Idle;
}

void RoundMachine::commit(const records::Record& record) {
  journal_.append(records::to_json(record));
  std::visit([this](const auto& r) { apply(r); }, record);
}

void RoundMachine::require(Phase phase, std::string_view doing) const {
  if (phase_ == phase) return;
  throw Error(fmt::format("cannot {} while the run is {}: this needs it {}", doing, name_of(phase_), name_of(phase)));
}

// ---- membership

void RoundMachine::joined(const NodeFacts& facts) {
  const auto known = members_.find(facts.node);
  const bool changed = known == members_.end() || known->second.facts.examples != facts.examples ||
                       known->second.facts.rank != facts.rank ||
                       known->second.facts.uplink_bytes_per_second != facts.uplink_bytes_per_second;
  if (changed) commit(records::Joined{facts});
  members_.at(facts.node).connected = true;
  sign_of_life(facts.node);
}

void RoundMachine::disconnected(NodeId node) {
  const auto member = members_.find(node);
  if (member != members_.end()) member->second.connected = false;
}

std::vector<NodeFacts> RoundMachine::registered() const {
  std::vector<NodeFacts> all;
  for (const auto& [node, member] : members_) all.push_back(member.facts);
  return all;
}

std::size_t RoundMachine::connected() const {
  return static_cast<std::size_t>(
      std::count_if(members_.begin(), members_.end(), [](const auto& entry) { return entry.second.connected; }));
}

// ---- rounds

void RoundMachine::open(const RoundPlan& plan) {
  require(Phase::Idle, "open a round");
  if (plan.round != next_round() || plan.attempt != next_attempt() || plan.base != epoch_) {
    throw Error(fmt::format("round {} attempt {} on epoch {} cannot be opened: next is round {} attempt {} on epoch {}",
                            plan.round, plan.attempt, plan.base, next_round(), next_attempt(), epoch_));
  }
  if (plan.cohort.empty() && plan.sampling_rate >= 1) {
    throw Error(fmt::format(
        "round {} has nobody to ask: no node was selected. Start nodes, or lower the selector's minimum", plan.round));
  }
  for (std::size_t i = 0; i < plan.cohort.size(); ++i) {
    const auto node = plan.cohort[i].node;
    if (!is_registered(node))
      throw Error(fmt::format("the cohort of round {} holds the node {:016x}, which never joined", plan.round, node));
    if (i > 0 && plan.cohort[i - 1].node >= node)
      throw Error("a cohort must be in ascending order of its nodes, each once");
  }
  commit(records::Opened{plan});
}

const RoundPlan& RoundMachine::plan() const {
  if (!plan_) throw Error("no round is open");
  return *plan_;
}

const std::vector<Accepted>& RoundMachine::close() {
  require(Phase::Collecting, "close a round");
  records::Closed record{plan_->round, plan_->attempt, {}};
  for (const auto& [node, slot] : slots_) {
    if (slot.upload && slot.upload->accepted) record.cohort.push_back(node);
  }
  commit(record);
  return cohort_;
}

const std::vector<Accepted>& RoundMachine::cohort() const {
  require(Phase::Folding, "name the cohort that is folded");
  return cohort_;
}

std::vector<Accepted> RoundMachine::accepted() const {
  std::vector<Accepted> all;
  for (const auto& [node, slot] : slots_) {
    if (slot.upload && slot.upload->accepted) all.push_back({node, *slot.upload});
  }
  return all;
}

void RoundMachine::abort(std::string_view reason) {
  if (phase_ != Phase::Folding && phase_ != Phase::Idle) require(Phase::Collecting, "abort a round");
  const auto round = next_round();
  commit(records::Aborted{round, plan_ ? plan_->attempt : next_attempt(), std::string(reason)});
  if (aborts_here_ < settings_.max_attempts) return;
  phase_ = Phase::Failed;
  failure_ = fmt::format(
      "round {} failed {} times, the last time because {}. Nothing is lost: mend the cause and resume the run", round,
      aborts_here_, reason);
}

void RoundMachine::released(const Version& version) {
  require(Phase::Folding, "release a version");
  if (version.epoch != plan_->base + 1) {
    throw Error(fmt::format("round {} makes epoch {}, not {}", plan_->round, plan_->base + 1, version.epoch));
  }
  commit(records::Released{plan_->round, plan_->attempt, version});
}

void RoundMachine::finish() {
  require(Phase::Idle, "finish the run");
  commit(records::Finished{});
}

// ---- what the records mean

void RoundMachine::apply(const records::Joined& record) {
  auto& facts = members_[record.facts.node].facts;
  const auto last_seen = facts.last_seen;
  facts = record.facts;
  facts.last_seen = last_seen;
}

void RoundMachine::apply(const records::Opened& record) {
  plan_ = record.plan;
  attempt_ = record.plan.attempt;
  cohort_.clear();
  start_slots(ids_of(record.plan.cohort));
  phase_ = Phase::Collecting;
}

void RoundMachine::apply(const records::Received& record) {
  slots_.at(record.node).upload = record.upload;
  auto& member = members_.at(record.node);
  member.facts.last_seen = record.round;
  member.outcomes.clear();  // this work came with them
}

void RoundMachine::apply(const records::Closed& record) {
  cohort_.clear();
  for (const auto node : record.cohort) {
    const auto& slot = slots_.at(node);
    if (!slot.upload) throw std::logic_error("a cohort member without an upload");
    cohort_.push_back({node, *slot.upload});
  }
  phase_ = Phase::Folding;
}

void RoundMachine::apply(const records::Aborted& record) {
  const auto why = fmt::format("round {} attempt {} was given up: {}", record.round, record.attempt, record.reason);
  for (const auto& [node, slot] : slots_) settle(node, slot, why);
  slots_.clear();
  cohort_.clear();
  plan_.reset();
  attempt_ = record.attempt;
  ++aborts_here_;
  phase_ = Phase::Idle;
}

void RoundMachine::apply(const records::Released& record) {
  for (const auto& [node, slot] : slots_) {
    if (!slot.upload) {
      settle(node, slot, kNothingArrived);
    } else {
      settle(node, slot, slot.upload->accepted ? std::string_view{} : std::string_view(slot.upload->reason));
    }
  }
  slots_.clear();
  cohort_.clear();
  plan_.reset();
  released_ = record.round;
  epoch_ = record.version.epoch;
  version_ = record.version;
  attempt_ = 0;
  aborts_here_ = 0;
  phase_ = Phase::Idle;
}

void RoundMachine::apply(const records::EvaluationOpened& record) {
  evaluating_ = record.epoch;
  answers_.clear();
  start_slots(record.nodes);
  phase_ = Phase::Evaluating;
}

void RoundMachine::apply(const records::Evaluated& record) {
  answers_[record.node] = record.claims;
  members_.at(record.node).outcomes.clear();
}

void RoundMachine::apply(const records::EvaluationClosed& record) {
  evaluations_[record.epoch] = std::move(answers_);
  answers_.clear();
  slots_.clear();
  phase_ = Phase::Idle;
}

void RoundMachine::apply(const records::Finished&) { phase_ = Phase::Finished; }

void RoundMachine::start_slots(const std::vector<NodeId>& nodes) {
  slots_.clear();
  opened_at_ = clock_.now();
  for (const auto node : nodes) slots_[node].last_sign = opened_at_;
}

void RoundMachine::settle(NodeId node, const Slot& slot, std::string_view discarded_because) {
  const bool applied = slot.upload && slot.upload->accepted && discarded_because.empty();
  std::string reason(discarded_because);
  if (!applied && reason.empty()) reason = "the upload was refused";
  auto& outcomes = members_.at(node).outcomes;
  const bool with_receipt = slot.upload.has_value();
  std::erase_if(outcomes, [&](const Outcome& old) { return old.with_receipt == with_receipt; });
  outcomes.push_back({{token_for(training(node)), applied, std::move(reason)}, with_receipt});
}

// ---- time

bool RoundMachine::delivered(NodeId node, const Slot& slot) const {
  return phase_ == Phase::Evaluating ? answers_.contains(node) : slot.upload.has_value();
}

bool RoundMachine::alive(const Slot& slot) const { return clock_.now() - slot.last_sign < settings_.lease_seconds; }

RoundStatus RoundMachine::round_status() const {
  RoundStatus status;
  status.cohort = slots_.size();
  status.seconds = slots_.empty() && !plan_ ? 0 : clock_.now() - opened_at_;
  for (const auto& [node, slot] : slots_) {
    if (delivered(node, slot)) {
      ++(slot.upload && !slot.upload->accepted ? status.refused : status.accepted);
    } else if (alive(slot)) {
      ++status.running;
    }
  }
  return status;
}

Next RoundMachine::tick() {
  const auto status = round_status();
  if (phase_ == Phase::Evaluating) {
    const bool timed_out = clock_.now() - opened_at_ >= settings_.evaluation_seconds;
    return status.running == 0 || timed_out ? Next::Close : Next::Wait;
  }
  if (phase_ != Phase::Collecting) return Next::Wait;
  if (slots_.empty()) return Next::Close;  // an empty draw is a round like any other: noised and charged
  return decide_(status);
}

double RoundMachine::next_timer() const {
  double next = std::numeric_limits<double>::infinity();
  if (phase_ != Phase::Collecting && phase_ != Phase::Evaluating) return next;
  const auto now = clock_.now();
  const auto consider = [&](double when) {
    when += kAfterTimer;
    if (when > now) next = std::min(next, when);
  };
  if (slots_.empty()) return now;
  consider(opened_at_ + (phase_ == Phase::Collecting ? settings_.deadline_seconds : settings_.evaluation_seconds));
  for (const auto& [node, slot] : slots_) {
    if (!delivered(node, slot)) consider(slot.last_sign + settings_.lease_seconds);
  }
  return next;
}

// ---- evaluation

void RoundMachine::open_evaluation(Epoch epoch, std::vector<NodeId> nodes) {
  require(Phase::Idle, "open an evaluation");
  if (epoch > epoch_) throw Error(fmt::format("epoch {} cannot be evaluated: the newest is {}", epoch, epoch_));
  std::sort(nodes.begin(), nodes.end());
  for (const auto node : nodes) {
    if (!is_registered(node)) throw Error(fmt::format("the node {:016x} cannot evaluate: it never joined", node));
  }
  commit(records::EvaluationOpened{epoch, std::move(nodes)});
}

const RoundMachine::Answers& RoundMachine::close_evaluation() {
  require(Phase::Evaluating, "close an evaluation");
  const auto epoch = evaluating_;
  commit(records::EvaluationClosed{epoch});
  return evaluations_.at(epoch);
}

const RoundMachine::Answers* RoundMachine::evaluation_of(Epoch epoch) const {
  const auto found = evaluations_.find(epoch);
  return found == evaluations_.end() ? nullptr : &found->second;
}

// ---- reports

RoundMachine::Status RoundMachine::status() const {
  Status status;
  status.phase = phase_;
  status.round = plan_ ? plan_->round : released_;
  status.rounds = settings_.rounds;
  status.attempt = attempt_;
  status.epoch = epoch_;
  status.population = members_.size();
  status.connected = connected();
  status.cohort = round_status();
  status.lost = status.cohort.cohort - status.cohort.accepted - status.cohort.refused - status.cohort.running;
  return status;
}

std::vector<RoundMachine::NodeReport> RoundMachine::nodes() const {
  const auto state_of = [this](NodeId node, const Slot& slot) {
    if (delivered(node, slot)) return slot.upload && !slot.upload->accepted ? NodeState::Refused : NodeState::Accepted;
    if (!alive(slot)) return NodeState::Lost;
    return slot.asked ? NodeState::Working : NodeState::Waiting;
  };
  std::vector<NodeReport> all;
  for (const auto& [node, slot] : slots_) all.push_back({node, state_of(node, slot), slot.progress});
  return all;
}

}  // namespace hansa
