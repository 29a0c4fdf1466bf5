// The round state machine: who works on what, what has arrived, when a round closes, what became of each upload. It owns no
// bytes and no tensor; it blocks on nothing but its journal. The coordinator's engine calls it under one mutex.
//
//   Idle --open--> Collecting --close--> Folding --released--> Idle ... --finish--> Finished
//                      \---------abort (attempt + 1)-----/
//   Idle --abort (attempt + 1)--> Idle
//   Idle --open_evaluation--> Evaluating --close_evaluation--> Idle
//
// Every transition is a journal record, written before its effect is visible: a new machine over the same journal goes on
// where the old one stood, with the same cohort, receipts, tokens and outcomes. Not journalled, so begun anew by a restart:
// leases, progress, and the seconds since a round opened.
//
// Lease: each cohort member that has not delivered must give a sign of life (join, work_for, redeem, heartbeat) every
// lease_seconds, counted from the opening. While it does, it is `running`, asked for work or not. Without, it is lost: it
// leaves `running` (cohort - accepted - refused - running), and is running again at its next sign of life while the round
// collects. A round may close without a lost node; then its outcome is "discarded".
//
// Misuse (closing a round that is not open) throws Error; DiskFull leaves the machine as it was before the call.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <hansa/types.hpp>

#include "base/clock.hpp"
#include "round/journal.hpp"
#include "round/records.hpp"
#include "round/work.hpp"

namespace hansa {

enum class Phase : std::uint8_t { Idle, Collecting, Folding, Evaluating, Finished, Failed };
std::string_view name_of(Phase phase);

class RoundMachine {
 public:
  struct Settings {
    Round rounds = 1;
    double lease_seconds = 30;                                            // infinity: nobody is ever lost (simulation)
    double deadline_seconds = std::numeric_limits<double>::infinity();    // the policy's, since the opening
    double evaluation_seconds = std::numeric_limits<double>::infinity();  // then the missing answers are given up
    std::uint32_t max_attempts = 3;  // of one round in this process; then the run fails with a sentence
    std::string token_key;           // secret of the run, the same after a restart (RunDirectory::secret)
  };
  using Decide = std::function<Next(const RoundStatus&)>;  // the round policy

  // Replays `journal`'s records. Clock and journal outlive the machine.
  RoundMachine(Settings settings, const Clock& clock, Journal& journal, Decide decide);

  // ---- membership: a node is registered from its first join on, also while it is away
  void joined(const NodeFacts& facts);
  void disconnected(NodeId node);             // for reports only: the lease decides when it is lost
  std::vector<NodeFacts> registered() const;  // ascending NodeId; last_seen: the last round that it delivered to
  bool is_registered(NodeId node) const { return members_.contains(node); }
  std::size_t connected() const;  // how many are joined now

  // ---- opening. What to open next:
  Phase phase() const { return phase_; }
  Round next_round() const { return released_ + 1; }
  std::uint32_t next_attempt() const { return attempt_ + 1; }  // of next_round(), while Idle
  Epoch epoch() const { return epoch_; }                       // newest released version
  bool rounds_done() const { return released_ >= settings_.rounds; }
  // Journals the plan (its cohort is private) before anybody gets work. Needs Idle, round == next_round(), attempt ==
  // next_attempt(), base == epoch(), an ascending cohort of registered nodes. An empty cohort is legal where nodes are
  // sampled (sampling_rate < 1): the next tick closes it.
  void open(const RoundPlan& plan);
  const RoundPlan& plan() const;  // Collecting and Folding

  // ---- the nodes' side
  std::optional<WorkItem> work_for(NodeId node);  // nothing: no part in what runs now, or delivered already
  struct Redeemed {
    WorkItem work;
    std::optional<Receipt> receipt;  // set when it was delivered already: the same commit gives this again
  };
  std::variant<Redeemed, Refusal> redeem(std::string_view token);
  Directive heartbeat(std::string_view token, const Progress& progress);
  // A complete, screened upload. Journalled when it returns. The same token again: the first receipt, nothing changes.
  std::variant<Receipt, Refusal> received(std::string_view token, const Upload& upload);
  // Outcomes that the node has not certainly seen: give them with each work (and with the end of the run). Seen is known from
  // a heartbeat, an upload or an answer for later work. At most two: the last with a receipt, the last without.
  std::vector<Settled> settled(NodeId node) const;

  // ---- the engine's side
  Next tick();  // Collecting: the policy's verdict; Evaluating: Close when complete or timed out; else Wait
  double next_timer() const;  // clock time at which tick() may answer differently without an event; infinity: never
  const std::vector<Accepted>& close();         // Collecting -> Folding: journals the cohort that is folded
  const std::vector<Accepted>& cohort() const;  // Folding: accepted uploads, ascending NodeId
  std::vector<Accepted> accepted() const;       // Collecting: those so far, ascending
  // Collecting or Folding -> Idle, or Failed after max_attempts. While Idle: the attempt that would be opened next is given
  // up, because it could not be planned; it counts, and the next one has the next number.
  void abort(std::string_view reason);
  // Folding -> Idle. After the version file has its final name (and the ledger knows): the uploads are settled "applied".
  void released(const Version& version);
  const std::optional<Version>& version() const { return version_; }  // newest released; nothing at epoch 0
  const std::string& failure() const { return failure_; }             // Failed: why

  // ---- evaluation on nodes
  void open_evaluation(Epoch epoch, std::vector<NodeId> nodes);  // Idle -> Evaluating; `nodes` registered, in any order
  std::optional<Refusal> evaluated(std::string_view token, const Claims& claims);  // journalled; repeats change nothing
  using Answers = std::map<NodeId, Claims>;
  const Answers& close_evaluation();                // Evaluating -> Idle
  const Answers* evaluation_of(Epoch epoch) const;  // closed ones, also from before a restart; null: none

  void finish();  // Idle -> Finished

  // ---- reports
  struct Status {
    Phase phase = Phase::Idle;
    Round round = 0, rounds = 0;  // round: the open one, else the last released
    std::uint32_t attempt = 0;
    Epoch epoch = 0;
    std::size_t population = 0, connected = 0;
    RoundStatus cohort;  // of the open round; evaluation: accepted counts answers
    std::size_t lost = 0;
  };
  Status status() const;
  enum class NodeState : std::uint8_t { Waiting, Working, Lost, Accepted, Refused };
  struct NodeReport {  // names cohort members: not for private runs' events
    NodeId node = 0;
    NodeState state = NodeState::Waiting;
    Progress progress;
  };
  std::vector<NodeReport> nodes() const;

 private:
  struct Slot {  // one cohort member, or one node asked to evaluate
    double last_sign = 0;
    bool asked = false;
    Progress progress;
    std::optional<Upload> upload;  // training: what was received
  };
  struct Outcome {
    Settled settled;
    bool with_receipt = false;
  };
  struct Member {
    NodeFacts facts;
    bool connected = false;
    std::vector<Outcome> outcomes;
  };

  // What a record means, the same live and replayed: no checks of the caller, no journal.
  void apply(const records::Joined& record);
  void apply(const records::Opened& record);
  void apply(const records::Received& record);
  void apply(const records::Closed& record);
  void apply(const records::Aborted& record);
  void apply(const records::Released& record);
  void apply(const records::EvaluationOpened& record);
  void apply(const records::Evaluated& record);
  void apply(const records::EvaluationClosed& record);
  void apply(const records::Finished& record);
  void commit(const records::Record& record);  // journal, then apply

  struct Token {
    WorkItem::Task task = WorkItem::Task::Train;
    Round round = 0;
    std::uint32_t attempt = 0;
    NodeId node = 0;
  };
  std::string token_for(const Token& what) const;
  std::variant<Token, Refusal> read_token(std::string_view token) const;
  std::variant<Token, Refusal> current(std::string_view token) const;  // of what runs now
  Token training(NodeId node) const;                                   // of the open round
  WorkItem item(const Token& what) const;
  bool delivered(NodeId node, const Slot& slot) const;
  bool alive(const Slot& slot) const;
  void sign_of_life(NodeId node);
  void settle(NodeId node, const Slot& slot, std::string_view discarded_because);  // "": applied
  void start_slots(const std::vector<NodeId>& nodes);
  RoundStatus round_status() const;
  void require(Phase phase, std::string_view doing) const;

  Settings settings_;
  const Clock& clock_;
  Journal& journal_;
  Decide decide_;

  Phase phase_ = Phase::Idle;
  std::map<NodeId, Member> members_;
  Round released_ = 0;  // rounds
  Epoch epoch_ = 0;
  std::uint32_t attempt_ = 0;      // of the open round, or the last one tried of the next
  std::uint32_t aborts_here_ = 0;  // of the next round, in this process
  std::optional<Version> version_;
  std::optional<RoundPlan> plan_;
  double opened_at_ = 0;
  std::map<NodeId, Slot> slots_;
  std::vector<Accepted> cohort_;
  Epoch evaluating_ = 0;
  Answers answers_;
  std::map<Epoch, Answers> evaluations_;
  std::string failure_;
};

}  // namespace hansa
