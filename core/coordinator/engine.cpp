#include "coordinator/engine.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/ids.hpp"
#include "base/rng.hpp"
#include "config/load.hpp"
#include "coordinator/session.hpp"
#include "coordinator/spend.hpp"
#include "pipeline/planned_sizes.hpp"
#include "pipeline/rules.hpp"
#include "report/quotients.hpp"

namespace hansa::coordinator {
namespace {

// Cohorts without privacy follow the run's seed, so that a run can be repeated.
class SeededDraw final : public DrawRng {
 public:
  explicit SeededDraw(std::uint64_t seed) : rng_(seed) {}
  double uniform() override { return rng_.uniform(); }

 private:
  SplitMix64 rng_;
};

RoundMachine::Settings machine_settings(const config::RunSpec& spec, const pipeline::Stages& stages,
                                        const RunDirectory& directory) {
  RoundMachine::Settings settings;
  settings.rounds = static_cast<Round>(spec.run.rounds);
  settings.lease_seconds = spec.simulation ? std::numeric_limits<double>::infinity() : spec.network.lease_seconds;
  settings.deadline_seconds = guard(stages.round_policy, {.doing = "name its deadline"},
                                    [](RoundPolicy& policy) { return policy.deadline_seconds(); });
  settings.evaluation_seconds = 10 * spec.network.lease_seconds + 600;
  settings.token_key = directory.secret("tokens");
  return settings;
}

}  // namespace

Engine::Engine(EngineSetup setup)
    : setup_(std::move(setup)),
      spec_(setup_.spec),
      stages_(setup_.stages),
      durability_(spec_.run.durability == "power" ? Durability::Power : Durability::Process),
      journal_(setup_.directory.journal(), durability_),
      spool_(setup_.directory.spool(), durability_),
      events_(setup_.directory.events(), is_private() ? NodeDetail::Withheld : NodeDetail::Written),
      metrics_(setup_.directory.metrics(), is_private() ? NodeDetail::Withheld : NodeDetail::Written) {
  for (const auto& node : spec_.nodes) names_.emplace(node_id(node.name), node.name);
  canonical_ = config::canonical_json(spec_);
  pipeline_digest_ = config::pipeline_digest(spec_);
  views_ = pipeline::views_of(stages_, setup_.layouts);
  for (const auto& node : spec_.nodes) {
    ranks_[node_id(node.name)] = node.rank;
    for (std::size_t v = 0; v < views_.size(); ++v) {
      if (views_[v].ranks.contains(node.rank)) views_by_node_[node_id(node.name)] = v;
    }
  }
  if (stages_.privacy) ledger_ = std::make_unique<Ledger>(setup_.directory.ledger());
  if (!journal_.note().empty()) setup_.log.warning(journal_.note());
  machine_ = std::make_unique<RoundMachine>(
      machine_settings(spec_, stages_, setup_.directory), setup_.clock, journal_, [this](const RoundStatus& status) {
        const CallPlace where{.doing = "decide", .round = machine_->next_round()};
        return guard(stages_.round_policy, where, [&](RoundPolicy& policy) { return policy.decide(status); });
      });
  started_at_ = setup_.clock.now();
  restore();
  if (!std::filesystem::exists(setup_.directory.components(machine_->epoch()))) save_components(machine_->epoch());
}

Engine::~Engine() = default;

Result Engine::run(const std::atomic<bool>& stop) {
  Lock lock(mutex_);
  for (;;) {
    if (stop) {
      ended_ = wire::Fault{wire::FaultCode::Busy, "the coordinator was stopped; it goes on with --resume", true, 2000};
      serve_everybody();
      return {Ending::Stopped,
              fmt::format("stopped after round {} of {}; go on with: hansa run --resume {}", machine_->next_round() - 1,
                          spec_.run.rounds, setup_.directory.path().string())};
    }
    try {
      if (auto result = step(lock)) return *result;
    } catch (
        const DiskFull& full) {  // the journal and the machine stand as before the step, so it is simply tried again
      setup_.log.error(
          fmt::format("{}; nothing accepted is lost, and the run goes on when there is room", full.what()));
      changed_.wait_for(lock, std::chrono::seconds(2));
    }
  }
}

// One look at the machine: does what is due, or waits.
std::optional<Result> Engine::step(Lock& lock) {
  dirty_ = false;
  switch (machine_->phase()) {
    case Phase::Idle: return idle(lock);
    case Phase::Collecting:
      switch (tick_open_round()) {
        case Next::Wait:
          show();
          wait(lock);
          break;
        case Next::Close: machine_->close(); break;
        case Next::Abort: {
          const auto status = machine_->status();
          const auto why = fmt::format("{} of {} nodes delivered, {} lost, {} refused", status.cohort.accepted,
                                       status.cohort.cohort, status.lost, status.cohort.refused);
          setup_.log.warning(fmt::format("round {} is given up: {}", status.round, why));
          give_up(why);
        }
      }
      return std::nullopt;
    case Phase::Folding: fold_and_release(lock); return std::nullopt;
    case Phase::Evaluating:
      if (machine_->tick() == Next::Close)
        close_evaluation(lock);
      else
        wait(lock);
      return std::nullopt;
    case Phase::Finished:
      if (auto& told = manifest_.notes["finished"]; told != std::to_string(spec_.run.rounds)) {
        events_.append("run_finished", {{"rounds", spec_.run.rounds}});
        told = std::to_string(spec_.run.rounds);
        checkpoint();
      }
      ended_ = wire::Fault{wire::FaultCode::Finished, "the run is complete", false, 0};
      serve_everybody();
      return Result{Ending::Finished, {}};
    case Phase::Failed: throw Error(fmt::format("the run cannot go on: {}", machine_->failure()));
  }
  return std::nullopt;
}

std::optional<Result> Engine::idle(Lock& lock) {
  const bool missing =
      std::any_of(names_.begin(), names_.end(), [&](const auto& node) { return !machine_->is_registered(node.first); });
  if (missing) {
    show("waiting for nodes");
    wait(lock);
    return std::nullopt;
  }
  if (const auto* answers = machine_->evaluation_of(machine_->epoch());
      answers && manifest_.notes["evaluated"] != std::to_string(machine_->epoch())) {
    record_evaluation(lock, machine_->epoch(), *answers);  // a restart came between journal and checkpoint
    return std::nullopt;
  }
  if (evaluation_due()) {
    std::vector<NodeId> nodes;
    for (const auto& node : spec_.nodes) {
      if (node.heldout) nodes.push_back(node_id(node.name));
    }
    machine_->open_evaluation(machine_->epoch(), std::move(nodes));
    serve_everybody();
    return std::nullopt;
  }
  if (machine_->rounds_done()) {
    machine_->finish();
    return std::nullopt;
  }
  auto next = plan_round();
  if (!next) return std::nullopt;
  if (const auto& why = next->over_budget) {
    events_.append("budget_spent", {{"round", next->plan.round}, {"reason", *why}});
    ended_ = wire::Fault{wire::FaultCode::BudgetSpent, *why, false, 0};
    serve_everybody();
    return Result{Ending::BudgetSpent, *why};
  }
  open_round(std::move(next->plan));
  return std::nullopt;
}

// Everything that plugins have a say in before a round is open. A failure costs the attempt, like one in the fold; the machine
// ends the run when they are used up.
std::optional<Engine::Planned> Engine::plan_round() {
  try {
    Planned next{draw_round(), {}};
    next.over_budget = budget_problem(next.plan);
    if (!next.over_budget) make_orders(next.plan);
    return next;
  } catch (const DiskFull&) {
    throw;
  } catch (const std::exception& failed) {
    setup_.log.error(fmt::format("round {} is given up: {}", machine_->next_round(), failed.what()));
    give_up(failed.what());
    return std::nullopt;
  }
}

// The round policy's verdict; its failure costs the attempt.
Next Engine::tick_open_round() {
  try {
    return machine_->tick();
  } catch (const PluginFailure& failed) {
    setup_.log.error(fmt::format("round {} is given up: {}", machine_->next_round(), failed.what()));
    give_up(failed.what());
    return Next::Wait;
  }
}

void Engine::give_up(std::string_view why) {
  const bool open = machine_->phase() != Phase::Idle;
  const auto attempt = open ? machine_->plan().attempt : machine_->next_attempt();
  events_.append("round_aborted",
                 {{"round", machine_->next_round()}, {"attempt", attempt}, {"reason", std::string(why)}});
  machine_->abort(why);
  slots_.clear();
  notice();
}

RoundPlan Engine::draw_round() {
  auto registered = machine_->registered();
  std::erase_if(registered, [&](const NodeFacts& node) { return !names_.contains(node.node); });  // left out since
  RoundPlan plan;
  plan.round = machine_->next_round();
  plan.attempt = machine_->next_attempt();
  plan.base = machine_->epoch();
  plan.population = registered.size();
  guard(stages_.selector, {.doing = "name its cohort", .round = plan.round}, [&](Selector& who) {
    plan.expected_cohort = who.expected_cohort(registered.size());
    plan.sampling_rate = who.sampling_rate(registered.size());
  });
  plan.adjacency = pipeline::adjacency_of(spec_);
  std::vector<NodeId> chosen;
  guard(stages_.selector, {.doing = "choose", .round = plan.round}, [&](Selector& who) {
    if (is_private()) {
      SecureDraw secret;  // amplification by sampling holds only while nobody can know the draw
      chosen = who.choose(registered, secret);
    } else {
      SeededDraw seeded(derive_seed(static_cast<std::uint64_t>(spec_.run.seed), "cohort", {plan.round, plan.attempt}));
      chosen = who.choose(registered, seeded);
    }
  });
  for (const auto& facts : registered) {
    if (std::binary_search(chosen.begin(), chosen.end(), facts.node)) plan.cohort.push_back(facts);
  }
  return plan;
}

// A release that would exceed the budget must not happen: better not to begin its round.
std::optional<std::string> Engine::budget_problem(const RoundPlan& plan) const {
  const auto spend = spend_of(plan);
  if (!spend || !spec_.privacy_host.epsilon_budget) return std::nullopt;
  auto events = ledger_->events();
  if (ledger_->would_be(plan.round, *spend) == Ledger::Charge::New) events.push_back(*spend);
  const double after = epsilon_of(events, spec_.privacy_host.delta);
  if (after <= *spec_.privacy_host.epsilon_budget) return std::nullopt;
  return fmt::format(
      "round {} would bring epsilon to {:.4g} at delta {:g}, beyond the budget of {:g}; nothing of it was released. "
      "The "
      "model of round {} stands",
      plan.round, after, spec_.privacy_host.delta, *spec_.privacy_host.epsilon_budget, plan.round - 1);
}

void Engine::open_round(RoundPlan plan) {
  round_opened_at_ = setup_.clock.now();
  slots_.clear();
  spool_.remove_all_but(plan.round, plan.attempt);
  machine_->open(plan);
  events_.append("round_opened", {{"round", plan.round},
                                  {"attempt", plan.attempt},
                                  {"base", plan.base},
                                  {"population", plan.population},
                                  {"expected_cohort", plan.expected_cohort}});
  serve_everybody();
}

// What the cohort is told: a function of the plan, so that a restart tells the same.
void Engine::make_orders(const RoundPlan& plan) {
  std::map<std::string, Order> orders;
  for (const auto& view : views_) {
    Order order;
    order.order.plan = plan;
    order.order.plan.cohort.clear();
    order.order.rounds = static_cast<Round>(spec_.run.rounds);
    NodeFacts node;
    node.rank = view.rank;
    order.order.exchange = pipeline::exchange_for(stages_, view.trainable, order.order.plan, node);
    if (stages_.privacy)
      order.order.clip_bound = guard(stages_.privacy, {.doing = "name its clip bound", .round = plan.round},
                                     [&](Privacy& mechanism) { return mechanism.clip_bound(order.order.plan); });
    order.json = to_json(order.order);
    order.max_upload_bytes = pipeline::upload_bytes(order.order.exchange, stages_.codecs, CodecChain::Size::Most);
    if (view.name.empty()) {
      const auto same = [](const Channel& a, const Channel& b) {
        return a.name == b.name && a.keep == b.keep && a.for_trainer == b.for_trainer && a.layout == b.layout;
      };
      if (!down_.empty() && !std::ranges::equal(down_, order.order.exchange.down, same))
        throw Error(fmt::format("{} changes its channels from round to round; what stands must stay the same",
                                stages_.aggregator.get_deleter().label()));
      down_ = order.order.exchange.down;
    }
    orders.emplace(view.name, std::move(order));
  }
  orders_ = std::move(orders);
}

// Of a registered node; its rank is the one that the config gives it.
const pipeline::View& Engine::view_of(NodeId node) const {
  const auto found = views_by_node_.find(node);
  return views_.at(found == views_by_node_.end() ? 0 : found->second);
}

bool Engine::evaluation_due() const {
  const auto epoch = machine_->epoch();
  if (machine_->evaluation_of(epoch)) return false;
  const bool anything =
      !spec_.evaluation.sets.empty() ||
      std::any_of(spec_.nodes.begin(), spec_.nodes.end(), [](const auto& node) { return node.heldout.has_value(); });
  if (!anything) return false;
  const auto every = static_cast<Epoch>(spec_.evaluation.every);
  return machine_->rounds_done() || (every > 0 && epoch % every == 0);
}

void Engine::close_evaluation(Lock& lock) {
  const auto answers = machine_->close_evaluation();
  record_evaluation(lock, machine_->epoch(), answers);
}

// A set that cannot be measured is missing from the metrics of this version, and said so: training goes on.
std::vector<std::pair<std::string, Metrics>> Engine::evaluate_own_sets(Lock& lock, Epoch epoch) {
  std::vector<std::pair<std::string, Metrics>> own;
  if (!setup_.own_evaluation) return own;
  show("evaluating");
  const auto standing = standing_of(setup_.directory, epoch);
  const auto down = down_;
  std::vector<std::pair<std::string, std::string>> failed;
  lock.unlock();
  for (const auto& set : spec_.evaluation.sets) {
    try {
      own.emplace_back(set.name, setup_.own_evaluation(standing, down, set));
    } catch (const std::exception&) {
      failed.emplace_back(set.name, plain_message());
    }
  }
  lock.lock();
  for (const auto& [set, why] : failed) {
    setup_.log.error(fmt::format("evaluation set '{}' after round {} is not measured: {}", set, epoch, why));
    events_.append("evaluation_failed", {{"epoch", epoch}, {"set", set}, {"reason", why}});
  }
  return own;
}

void Engine::record_evaluation(Lock& lock, Epoch epoch, const RoundMachine::Answers& answers) {
  const auto own = evaluate_own_sets(lock, epoch);
  Sums all;
  if (!is_private()) {
    for (const auto& [node, claims] : answers) {
      Sums one;
      add(one, claims.metrics);
      for (const auto& [name, value] : quotients(one))
        metrics_.add_node(epoch, name_of(node), "heldout_" + name, value);
      add(all, claims.metrics);
    }
  }
  for (const auto& [set, sums] : own) {  // these sets belong to no node, so nothing about one is given away
    Sums one;
    add(one, sums);
    for (const auto& [name, value] : quotients(one))
      metrics_.add(epoch, fmt::format("heldout_{}.{}", name, set), value);
    add(all, sums);
  }
  const auto whole = quotients(all);
  EventFields said{{"epoch", epoch}};
  std::string detail;
  for (const auto& [name, value] : whole) {
    metrics_.add(epoch, "heldout_" + name, value);
    said.emplace_back(name, value);
    detail += fmt::format("{}{:.4f} {}", detail.empty() ? "held-out " : ", ", value, name);
  }
  if (!whole.empty()) {
    events_.append("evaluated", said);
    last_detail_ = detail;
  }
  manifest_.notes["evaluated"] = std::to_string(epoch);
  checkpoint();
  show();
}

void Engine::wait(Lock& lock) {
  const double now = setup_.clock.now();
  const double until =
      std::clamp(machine_->next_timer() - now, 0.0, 0.2);  // `stop` is set by a signal, which wakes nobody
  changed_.wait_for(lock, std::chrono::duration<double>(until), [this] { return dirty_; });
}

void Engine::show(std::string_view detail) {
  if (!setup_.progress) return;
  const auto status = machine_->status();
  std::string text(detail.empty() ? last_detail_ : detail);
  if (status.phase == Phase::Collecting && !is_private()) {
    text = fmt::format("{}/{} nodes  {}", status.cohort.accepted, status.cohort.cohort, text);
  }
  setup_.progress("federating", machine_->next_round() - 1, static_cast<std::uint64_t>(spec_.run.rounds), text);
}

bool Engine::everybody_left() {
  const std::lock_guard lock(mutex_);
  return sessions_.empty();
}
Epoch Engine::epoch() {
  const std::lock_guard lock(mutex_);
  return machine_->epoch();
}
std::optional<double> Engine::epsilon() {
  const std::lock_guard lock(mutex_);
  return spent_epsilon();
}
std::optional<double> Engine::spent_epsilon() const {
  if (!ledger_ || !stages_.central_noise) return std::nullopt;
  return epsilon_of(ledger_->events(), spec_.privacy_host.delta);
}

}  // namespace hansa::coordinator
