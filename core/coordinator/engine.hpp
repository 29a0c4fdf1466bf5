// The coordinator: joins the round machine, the wire's Service, the fold and the run directory. One mutex guards the machine
// and everything the nodes see; the fold, which may take seconds, runs outside it on the thread that called run(). Node calls
// arrive on the wire's I/O thread (or on a simulation's thread) and never wait for LibTorch: screening has a thread of its own.
//
// run() goes on from whatever the run directory holds, so starting and resuming are the same call. Throws Error for what
// nobody can go on from (a damaged ledger, a plugin that fails in every attempt); the run directory stays as it was.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/run_directory.hpp"
#include "config/run_spec.hpp"
#include "coordinator/standing.hpp"
#include "coordinator/task_queue.hpp"
#include "fold/standing.hpp"
#include "pipeline/exchange.hpp"
#include "pipeline/work_order.hpp"
#include "report/events.hpp"
#include "report/metrics.hpp"
#include "round/ledger.hpp"
#include "round/machine.hpp"
#include "round/spool.hpp"
#include "tensor/secure_rng.hpp"
#include "wire/service.hpp"

namespace hansa::coordinator {

struct EngineSetup {
  const config::RunSpec& spec;
  pipeline::Stages& stages;
  pipeline::LayoutsByRank layouts;
  RunDirectory& directory;  // holds version 0 of every view
  std::string base_digest, tokenizer_digest;
  std::vector<wire::PluginRef> plugins;  // what nodes must run in the same version
  // The pipeline may differ from the one that the run directory was made by, or lack nodes: the open attempt is given up, and
  // components that were not there before start as at the beginning.
  bool changed = false;
  const Clock& clock;
  const Log& log;
  // Evaluates a version on a held-out set of the coordinator's own; empty: there are none.
  std::function<Metrics(const fold::Standing&, const std::vector<Channel>& down, const config::EvaluationSection::Set&)>
      own_evaluation;
  // Told after each change worth showing, on the round thread: stage, how far, a detail ("loss 2.31").
  std::function<void(std::string_view stage, std::uint64_t done, std::uint64_t total, std::string_view detail)>
      progress;
};

enum class Ending { Finished, BudgetSpent, Stopped };
struct Result {
  Ending ending = Ending::Finished;
  std::string message;
};

class Session;
class UploadSlot;

class Engine final : public wire::Service {
 public:
  explicit Engine(EngineSetup);
  ~Engine() override;

  // Until the last round is released and evaluated, the budget is spent, or `stop` is set (checked at least every 0.2 s).
  Result run(const std::atomic<bool>& stop);
  wire::Answer<wire::Joined> join(const wire::Hello&, const wire::Peer&) override;

  bool everybody_left();  // no session is open any more
  Epoch epoch();
  std::optional<double> epsilon();  // spent so far; nothing without a mechanism that spends

 private:
  friend class Session;
  friend class UploadSlot;
  using Lock = std::unique_lock<std::mutex>;

  // engine.cpp: the loop
  std::optional<Result> step(Lock&);
  std::optional<Result> idle(Lock&);
  std::optional<std::string> budget_problem(const RoundPlan&) const;
  RoundPlan draw_round();
  struct Planned {  // what comes next: a round, or the sentence that says why the budget does not allow it
    RoundPlan plan;
    std::optional<std::string> over_budget;
  };
  std::optional<Planned> plan_round();  // nothing: a plugin failed, and the attempt was given up
  void open_round(RoundPlan);
  void make_orders(const RoundPlan&);
  Next tick_open_round();
  void give_up(std::string_view why);  // the open attempt, or the one that cannot be planned
  const pipeline::View& view_of(NodeId) const;
  bool evaluation_due() const;
  void close_evaluation(Lock&);
  void record_evaluation(Lock&, Epoch, const RoundMachine::Answers&);
  std::vector<std::pair<std::string, Metrics>> evaluate_own_sets(Lock&, Epoch);
  void wait(Lock&);
  void show(std::string_view detail = {});

  // release.cpp: from accepted uploads to a released version
  struct Order {  // what the nodes of one view are told in the open round
    pipeline::WorkOrder order;
    std::string json;
    std::uint64_t max_upload_bytes = 0;
  };
  struct Folded {
    Metrics metrics;
    FileFacts version, state;
    bool spends = false;  // the ledger was charged for it
  };
  void fold_and_release(Lock&);
  bool already_folded(const RoundPlan&) const;
  Folded adopt(const RoundPlan&);
  Folded fold_now(const RoundPlan&, const std::vector<Accepted>&);
  void forget_attempt(Epoch next) const;
  void forget_downloads(Epoch) const;
  void release(const RoundPlan&, Folded);
  void checkpoint_round(const RoundPlan&, Folded);
  void record_round(const RoundPlan&, Metrics);
  void sweep();
  void checkpoint();
  void restore();
  void take_changes();
  void require_fitting_version() const;
  void save_components(Epoch) const;
  void load_components(Epoch);
  void prepare_downloads(Epoch) const;  // what nodes are sent of a version, beside the version itself
  void compact_log(Epoch) const;
  std::optional<SpendEvent> spend_of(const RoundPlan&) const;
  std::optional<double> spent_epsilon() const;
  double weight_of(const Claims&) const;

  // service.cpp: what nodes ask for; all with mutex_ held
  std::optional<wire::Fault> why_not(const wire::Hello&) const;
  void serve_everybody();
  void serve(Session&);
  wire::WorkOffer offer(const WorkItem&, Epoch holds);
  void add_pulls(wire::WorkOffer&, const pipeline::View&, Epoch holds, Epoch target);
  void add_pull(wire::WorkOffer&, std::string_view what, Epoch from, Epoch to, const std::filesystem::path&);
  std::shared_ptr<UploadSlot> slot_of(const WorkItem&);
  std::string name_of(NodeId) const;
  void notice();  // wakes the round thread
  // An event about a node. Told while serving it, so a full disk costs the event, not the service.
  void note_node(std::string_view event, std::string_view node, EventFields fields = {});
  bool is_private() const { return stages_.central_noise; }

  EngineSetup setup_;
  const config::RunSpec& spec_;
  pipeline::Stages& stages_;
  Durability durability_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool dirty_ = true;  // something happened since the round thread last looked
  Journal journal_;
  Spool spool_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<RoundMachine> machine_;
  EventLog events_;
  MetricsFile metrics_;
  Manifest manifest_;
  std::map<NodeId, std::string> names_;  // the registered population
  std::map<NodeId, Session*> sessions_;
  std::map<std::string, std::shared_ptr<UploadSlot>> slots_;  // by token, of what runs now
  struct Served {
    std::shared_ptr<const MappedFile> file;
    Checksum checksum;
  };
  std::map<std::filesystem::path, Served> served_;  // mapped when first asked for
  std::vector<pipeline::View> views_;               // "" first
  std::map<std::string, Order> orders_;             // by view: of the open round, or of the state that is evaluated
  std::map<NodeId, std::size_t> views_by_node_;     // which of them
  std::map<NodeId, double> ranks_;                  // of the nodes' adapters, as configured
  std::vector<Channel> down_;                       // of the view ""
  std::string canonical_, pipeline_digest_;
  std::atomic<std::uint64_t> bytes_down_{0}, bytes_up_{0};
  double seconds_before_ = 0, started_at_ = 0, round_opened_at_ = 0;
  std::string last_detail_;
  std::optional<wire::Fault> ended_;  // what pollers are told once the run is over
  SecureNoise noise_;
  TaskQueue screening_;  // last: its thread ends before anything that it uses
};

}  // namespace hansa::coordinator
