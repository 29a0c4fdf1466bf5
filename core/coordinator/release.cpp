// From the accepted uploads of a closed round to a released version, and back from the run directory after a restart.
//
// The order is what makes a kill at any point harmless: charge the ledger; write optimiser and component state, then the
// version, each under its final name by one rename; mark the charge released; append events and metrics; write the manifest;
// tell the machine. Until the version has its name, the fold is simply repeated. From then on it is adopted, never redone,
// so noise is drawn once for what becomes known.
#include <fcntl.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "coordinator/engine.hpp"
#include "coordinator/session.hpp"
#include "fold/component_file.hpp"
#include "fold/fold.hpp"

namespace hansa::coordinator {

std::optional<SpendEvent> Engine::spend_of(const RoundPlan& plan) const {
  if (!stages_.privacy) return std::nullopt;
  auto priced = plan;
  if (plan.adjacency != Adjacency::AddRemove) priced.sampling_rate = 1;  // nothing is amplified: rule 9
  const auto event = guard(stages_.privacy, {.doing = "event", .round = plan.round},
                           [&](Privacy& mechanism) { return mechanism.event(priced); });
  if (!event) return std::nullopt;
  return SpendEvent{event->mechanism, event->noise_multiplier, event->sampling_rate, event->count,
                    std::string(hansa::name_of(event->adjacency))};
}

// The host's weight of one update. Claims are the node's, so under a cap they are bounded and scaled to at most 1.
double Engine::weight_of(const Claims& claims) const {
  const auto& weights = spec_.weights;
  if (weights.weighting == "uniform") return 1;
  const double claimed = static_cast<double>(weights.weighting == "tokens" ? claims.tokens : claims.examples);
  return weights.max_weight ? std::min(claimed, *weights.max_weight) / *weights.max_weight : claimed;
}

void Engine::fold_and_release(Lock& lock) {
  const auto plan = machine_->plan();
  const auto accepted = machine_->cohort();
  lock.unlock();
  Folded folded;
  const double began = setup_.clock.now();
  try {
    folded = already_folded(plan) ? adopt(plan) : fold_now(plan, accepted);
    folded.spends = spend_of(plan).has_value();
    prepare_downloads(plan.base + 1);
    compact_log(plan.base + 1);
  } catch (const DiskFull&) {
    lock.lock();
    load_components(plan.base);  // plugins may have changed their state half-way
    throw;                       // the fold is tried again
  } catch (const std::exception& failed) {
    lock.lock();
    setup_.log.error(fmt::format("round {} is given up: {}", plan.round, failed.what()));
    load_components(plan.base);  // plugins may have changed their state half-way
    give_up(failed.what());
    return;
  }
  folded.metrics.emplace_back("seconds_fold", setup_.clock.now() - began);
  lock.lock();
  release(plan, std::move(folded));
}

bool Engine::already_folded(const RoundPlan& plan) const {
  const auto path = setup_.directory.version(plan.base + 1);
  if (!std::filesystem::exists(path)) return false;
  const MappedFile file(path);
  return PacketView(file.bytes()).meta("made_by") == fold::made_by(plan);
}

Engine::Folded Engine::adopt(const RoundPlan& plan) {
  const auto next = plan.base + 1;
  load_components(next);
  Folded folded;
  folded.version = facts_of(setup_.directory.version(next));
  if (std::filesystem::exists(setup_.directory.state(next))) folded.state = facts_of(setup_.directory.state(next));
  return folded;
}

Engine::Folded Engine::fold_now(const RoundPlan& plan, const std::vector<Accepted>& accepted) {
  fold::FoldPlan what;
  what.round = plan;
  for (const auto& view : views_) {
    what.views.push_back(
        {view.name, view.trainable, orders_.at(view.name).order.exchange,
         setup_.directory.version(plan.base, view.name), setup_.directory.version(plan.base + 1, view.name),
         stages_.downlink.empty() ? std::filesystem::path() : setup_.directory.served(plan.base, view.name)});
  }
  what.down_seed = pipeline::down_seed(static_cast<std::uint64_t>(spec_.run.seed));
  what.common_seed = pipeline::common_seed(static_cast<std::uint64_t>(spec_.run.seed), plan.round);
  what.additive = stages_.additive;
  what.names_nodes = !is_private();
  std::vector<fold::FoldClient> clients;
  double weights = 0;
  for (const auto& one : accepted) {
    const auto& claims = one.upload.claims;
    fold::FoldClient client{
        {one.node, view_of(one.node).name, weight_of(claims), claims.examples, claims.tokens, claims.steps},
        one.upload.clip_factor,
        spool_.path_of(plan.round, plan.attempt, one.node)};
    weights += client.who.weight;
    clients.push_back(std::move(client));
  }
  // Under central DP the denominator is public and planned: the number of participants is itself private.
  what.denominator = is_private() ? plan.expected_cohort : weights;
  if (what.additive && !(what.denominator > 0))
    throw Error("the accepted updates weigh nothing (their nodes claim no examples)");
  what.sensitivity = {orders_.at("").order.clip_bound, 1, what.denominator};
  if (plan.adjacency == Adjacency::ReplaceOne) what.sensitivity.l2 *= 2;

  if (const auto spend = spend_of(plan)) ledger_->charge(plan.round, plan.attempt, *spend);
  const auto next = plan.base + 1;
  forget_attempt(next);
  const fold::FoldFiles files{setup_.directory.state(plan.base), setup_.directory.state(next),
                              setup_.directory.log(next), durability_, [&] { save_components(next); }};
  auto outcome = fold::fold(
      what, clients,
      {stages_.aggregator, stages_.server_optimizer, stages_.privacy, stages_.codecs, stages_.downlink, noise_}, files);
  Folded folded{std::move(outcome.metrics), {outcome.version.size, outcome.version.checksum}, {}};
  if (outcome.state) folded.state = {outcome.state->size, outcome.state->checksum};
  return folded;
}

// An attempt that was given up after its fold may have left what goes with a version.
void Engine::forget_attempt(Epoch next) const {
  std::error_code missing_is_fine;
  std::filesystem::remove(setup_.directory.log(next), missing_is_fine);
  std::filesystem::remove(setup_.directory.snapshot(next), missing_is_fine);
  forget_downloads(next);
}

void Engine::forget_downloads(Epoch epoch) const {
  std::error_code missing_is_fine;
  for (const auto& view : views_) {
    std::filesystem::remove(setup_.directory.served(epoch, view.name), missing_is_fine);
    std::filesystem::remove(setup_.directory.part(epoch, view.name), missing_is_fine);
  }
}

void Engine::release(const RoundPlan& plan, Folded folded) {
  const auto next = plan.base + 1;
  if (ledger_ && folded.spends && !ledger_->was_released(plan.round)) ledger_->released(plan.round, plan.attempt, next);
  if (manifest_.epoch != next)
    checkpoint_round(plan, std::move(folded));  // else a restart came between checkpoint and journal
  machine_->released({next, folded.version.size, folded.version.checksum});
  sweep();
  show();
}

// What the round leaves behind goes. Unlinking a file is quick while somebody holds it, giving back its pages is not: so the
// last holder is a task of the screening thread, and the next round need not wait.
void Engine::sweep() {
  struct Held {
    std::map<std::string, std::shared_ptr<UploadSlot>> slots;  // shared with the wire until nodes let go
    std::map<std::filesystem::path, Served> served;            // shared with downloads
    std::vector<FileDescriptor> files;
  };
  Held held{std::exchange(slots_, {}), std::exchange(served_, {}), {}};
  const auto epoch = machine_->epoch();
  const auto kept = static_cast<Epoch>(std::max<std::int64_t>(spec_.run.keep_versions, 1));
  const auto going = epoch - std::min(kept, epoch);  // or one that stays: holding it does no harm
  std::vector<std::filesystem::path> paths{setup_.directory.state(going)};
  for (const auto& view : views_) {
    paths.push_back(setup_.directory.version(going, view.name));
    paths.push_back(setup_.directory.served(going, view.name));
  }
  for (const auto& path : paths) held.files.emplace_back(open(path.c_str(), O_RDONLY | O_CLOEXEC));  // missing is fine
  setup_.directory.keep_versions(epoch, spec_.run.keep_versions);
  if (const auto snapshot = setup_.directory.newest_snapshot()) setup_.directory.drop_logs(*snapshot);
  spool_.remove_all_but(machine_->next_round(), machine_->next_attempt());
  screening_.post([last = std::make_shared<Held>(std::move(held))] {});
}

// All or nothing: a step that a full disk stopped is repeated.
void Engine::checkpoint_round(const RoundPlan& plan, Folded folded) {
  const auto before = manifest_;
  const auto events_at = events_.offset(), metrics_at = metrics_.offset();
  try {
    record_round(plan, std::move(folded.metrics));
    manifest_.epoch = plan.base + 1;
    manifest_.round = plan.round;
    manifest_.version = folded.version;
    manifest_.state = folded.state;
    checkpoint();
  } catch (const DiskFull&) {
    manifest_ = before;
    events_.truncate_to(events_at);
    metrics_.truncate_to(metrics_at);
    throw;
  }
}

void Engine::record_round(const RoundPlan& plan, Metrics metrics) {
  if (!is_private()) {  // under DP nothing that the noise does not cover is written, not even averages
    double tokens = 0, loss = 0;
    for (const auto& one : machine_->cohort()) {
      const auto name = name_of(one.node);
      for (const auto& [key, value] : one.upload.claims.metrics) {
        metrics_.add_node(plan.round, name, key, value);
        if (key == "loss") loss += value * static_cast<double>(one.upload.claims.tokens);
      }
      metrics_.add_node(plan.round, name, "update_norm", one.upload.norm);
      tokens += static_cast<double>(one.upload.claims.tokens);
    }
    for (const auto& [token, slot] : slots_) {
      metrics_.add_node(plan.round, name_of(slot->node()), "seconds_upload", slot->upload_seconds());
      metrics_.add_node(plan.round, name_of(slot->node()), "seconds_screen", slot->screen_seconds());
    }
    if (tokens > 0) {
      metrics.emplace_back("train_loss", loss / tokens);
      last_detail_ = fmt::format("loss {:.3f}", loss / tokens);
    }
    metrics.emplace_back("cohort", static_cast<double>(machine_->cohort().size()));
  }
  metrics.emplace_back("seconds", setup_.clock.now() - round_opened_at_);
  if (const auto spent = spent_epsilon()) {
    metrics.emplace_back("epsilon", *spent);
    last_detail_ = fmt::format("epsilon {:.2f}", *spent);
  }
  for (const auto& [key, value] : metrics) metrics_.add(plan.round, key, value);
  events_.append("round_released", {{"round", plan.round}, {"attempt", plan.attempt}, {"epoch", plan.base + 1}});
}

// Logs and version belong together: what the logs say after this is cut again by a restart.
void Engine::checkpoint() {
  manifest_.run_id = pipeline_digest_;
  manifest_.events_offset = events_.offset();
  manifest_.metrics_offset = metrics_.offset();
  manifest_.notes["bytes_down"] = std::to_string(bytes_down_.load());
  manifest_.notes["bytes_up"] = std::to_string(bytes_up_.load());
  manifest_.notes["seconds"] = fmt::format("{}", seconds_before_ + setup_.clock.now() - started_at_);
  write_manifest(setup_.directory.manifest(), manifest_, durability_);
}

// What a restart finds: logs longer than the checkpoint, a version that may be one step ahead of the machine.
void Engine::restore() {
  if (auto loaded = load_manifest(setup_.directory.manifest())) {
    if (!loaded->note.empty()) setup_.log.warning(loaded->note);
    manifest_ = std::move(loaded->manifest);
    if (manifest_.run_id != pipeline_digest_ && !setup_.changed) {
      throw Error(
          fmt::format("{} was made by another pipeline; resume with its own config.toml, say what to change (hansa run "
                      "--resume DIR --set …; hansa coordinator … --resume --changed), or start a new run directory",
                      setup_.directory.path().string()));
    }
    bytes_down_ = std::stoull(manifest_.notes["bytes_down"]);
    bytes_up_ = std::stoull(manifest_.notes["bytes_up"]);
    seconds_before_ = std::stod(manifest_.notes["seconds"]);
  }
  events_.truncate_to(manifest_.events_offset);
  metrics_.truncate_to(manifest_.metrics_offset);
  const bool anew = machine_->registered().empty();
  events_.append(anew ? "run_started" : "resumed",
                 {{"name", spec_.run.name}, {"epoch", machine_->epoch()}, {"pipeline", pipeline_digest_}});
  load_components(machine_->epoch());
  take_changes();
  const bool open = machine_->phase() == Phase::Collecting || machine_->phase() == Phase::Folding;
  RoundPlan plan;  // between rounds: what stands does not depend on the round
  plan.round = machine_->next_round();
  plan.population = spec_.nodes.size();
  make_orders(open ? machine_->plan() : plan);
  round_opened_at_ = setup_.clock.now();
  prepare_downloads(machine_->epoch());
}

// After a run goes on with another pipeline or without a node: nothing of the open attempt fits any more.
void Engine::take_changes() {
  const bool open = machine_->phase() == Phase::Collecting || machine_->phase() == Phase::Folding;
  const bool left_out = open && std::any_of(machine_->plan().cohort.begin(), machine_->plan().cohort.end(),
                                            [&](const auto& node) { return !names_.contains(node.node); });
  const bool other = !manifest_.run_id.empty() && manifest_.run_id != pipeline_digest_;
  if (!other && !left_out) return;
  const auto why = other ? "the pipeline was changed" : "a node was left out";
  events_.append("changed", {{"reason", why}, {"pipeline", pipeline_digest_}});
  if (other) require_fitting_version();
  if (open) machine_->abort(why);
  if (!other) return;
  save_components(machine_->epoch());
  for (const auto epoch : setup_.directory.versions()) forget_downloads(epoch);  // encoded for the downlink that was
}

// What stands must be what the changed pipeline trains.
void Engine::require_fitting_version() const {
  RoundPlan plan;
  plan.round = machine_->next_round();
  const auto& view = views_.front();
  const auto path = setup_.directory.version(machine_->epoch());
  const MappedFile file(path);
  const PacketView packet(file.bytes());
  for (const auto& channel : pipeline::exchange_for(stages_, view.trainable, plan, {}).down) {
    if (channel.keep != Keep::Latest) continue;
    const auto* held = packet.find(channel.name);
    const auto why =
        held ? difference(*held, channel.layout) : std::optional(fmt::format("it holds no channel '{}'", channel.name));
    if (why)
      throw Error(
          fmt::format("the changed pipeline cannot go on from {}: {}. Model, adapter and channels must stay; start a "
                      "new run to change them",
                      path.string(), *why));
  }
}

void Engine::save_components(Epoch epoch) const {
  fold::ComponentStates states;
  stages_.each_component("save", [&](const std::string& name, Component& component) { states.save(name, component); });
  states.write(setup_.directory.components(epoch), durability_);
}
void Engine::load_components(Epoch epoch) {
  const auto path = setup_.directory.components(epoch);
  if (!std::filesystem::exists(path)) return;  // epoch 0: as created
  const auto states = fold::ComponentStates::read(path);
  stages_.each_component("load", [&](const std::string& name, Component& component) {
    if (!setup_.changed || states.has(name)) states.load(name, component);
  });
}

}  // namespace hansa::coordinator
