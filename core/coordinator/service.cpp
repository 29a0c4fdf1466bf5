// What nodes ask of the engine. Everything here runs with the engine's mutex held, on whichever thread asked.
#include <algorithm>

#include <fmt/format.h>

#include "base/ids.hpp"
#include "coordinator/session.hpp"

namespace hansa::coordinator {
std::optional<wire::Fault> Engine::why_not(const wire::Hello& hello) const {
  const auto refuse = [&](wire::FaultCode code, std::string why) {
    return wire::Fault{code, std::move(why), false, 0};
  };
  const auto known = names_.find(node_id(hello.node));
  if (known == names_.end() || known->second != hello.node) {
    return refuse(wire::FaultCode::Unauthorised,
                  fmt::format("node '{}' is not part of this run; add [[node]] name = \"{}\" to its config", hello.node,
                              hello.node));
  }
  if (hello.base_digest != setup_.base_digest) {
    return refuse(
        wire::FaultCode::BaseMismatch,
        fmt::format(
            "node '{}' has another base model (digest {}…, this run has {}…); give it the same checkpoint with --model",
            hello.node, hello.base_digest.substr(0, 12), setup_.base_digest.substr(0, 12)));
  }
  if (hello.tokenizer_digest != setup_.tokenizer_digest) {
    return refuse(wire::FaultCode::BaseMismatch,
                  fmt::format("node '{}' has another tokenizer (digest {}…, this run has {}…); copy tokenizer.json "
                              "from the coordinator's "
                              "checkpoint",
                              hello.node, hello.tokenizer_digest.substr(0, 12), setup_.tokenizer_digest.substr(0, 12)));
  }
  if (const auto rank = ranks_.at(known->first); hello.rank != rank) {
    return refuse(wire::FaultCode::Unauthorised,
                  fmt::format("node '{}' has rank {:g}, and this run's config gives it {:g}; start it with --rank {:g}",
                              hello.node, hello.rank, rank, rank));
  }
  for (const auto& needed : setup_.plugins) {
    const auto has =
        std::find_if(hello.plugins.begin(), hello.plugins.end(), [&](const auto& one) { return one.id == needed.id; });
    if (has == hello.plugins.end() || has->version != needed.version) {
      return refuse(
          wire::FaultCode::PluginMismatch,
          fmt::format("node '{}' needs plugin {} {} and has {}; install that version and start it again", hello.node,
                      needed.id, needed.version, has == hello.plugins.end() ? "none" : has->version));
    }
  }
  return std::nullopt;
}

wire::Answer<wire::Joined> Engine::join(const wire::Hello& hello, const wire::Peer& peer) {
  const std::lock_guard lock(mutex_);
  if (ended_ && !ended_->retry) return *ended_;
  if (auto fault = why_not(hello)) {
    setup_.log.warning(fmt::format("{} refused: {}", peer.address, fault->message));
    return *fault;
  }
  const auto node = node_id(hello.node);
  if (const auto older = sessions_.find(node); older != sessions_.end() && older->second->peer_.link) {
    older->second->peer_.link->close(
        "the node connected again");  // most likely its old link is dead and nobody noticed yet
  }
  try {
    machine_->joined({node, hello.examples, hello.rank, hello.resources.uplink_bytes_per_second, 0});
  } catch (const DiskFull& full) {
    setup_.log.warning(fmt::format("{} is asked to join later: {}", hello.node, full.what()));
    return wire::Fault{wire::FaultCode::Busy, fmt::format("the coordinator's disk is full: {}", full.what()), true,
                       2000};
  }
  note_node("node_joined", hello.node, {{"address", peer.address}, {"build", hello.build}});
  auto session = std::make_unique<Session>(*this, node, peer);
  sessions_[node] = session.get();
  notice();
  wire::Welcome welcome;
  welcome.run_id = pipeline_digest_.substr(0, 16);
  welcome.node_id = node;
  welcome.heartbeat_ms = static_cast<std::uint32_t>(1000 * spec_.network.heartbeat_seconds);
  return wire::Joined{std::move(session), std::move(welcome)};
}

void Engine::serve_everybody() {
  for (const auto& [node, session] : sessions_) serve(*session);
}

void Engine::serve(Session& session) {
  if (!session.waiting_) return;
  if (ended_) return std::exchange(session.waiting_, nullptr)(*ended_);
  if (auto work = machine_->work_for(session.node_))
    std::exchange(session.waiting_, nullptr)(offer(*work, session.holds_));
}

wire::WorkOffer Engine::offer(const WorkItem& work, Epoch holds) {
  wire::WorkOffer offer;
  auto& info = offer.info;
  info.task = work.task == WorkItem::Task::Train ? wire::Task::Train : wire::Task::Evaluate;
  info.round = work.round;
  info.attempt = work.attempt;
  info.base_epoch = work.base;
  const auto& view = view_of(work.node);
  const auto& order = orders_.at(view.name);
  info.view = view.name;
  info.exchange = order.json;
  info.pipeline_digest = pipeline_digest_;
  info.max_upload_bytes = work.task == WorkItem::Task::Train ? order.max_upload_bytes : 0;
  info.lease_ms = static_cast<std::uint32_t>(1000 * spec_.network.lease_seconds);
  info.token = work.token;
  for (const auto& settled : machine_->settled(work.node))
    info.settled.push_back({settled.token, settled.applied, settled.reason});
  add_pulls(offer, view, holds, work.base);
  offer.upload = slot_of(work);
  return offer;
}

std::shared_ptr<UploadSlot> Engine::slot_of(const WorkItem& work) {
  auto& slot = slots_[work.token];
  if (!slot) {
    std::optional<SpoolFile> spool;
    if (work.task == WorkItem::Task::Train)
      spool = spool_.open(work, orders_.at(view_of(work.node).name).max_upload_bytes);
    slot = std::make_shared<UploadSlot>(*this, work, std::move(spool));
  }
  return slot;
}

std::string Engine::name_of(NodeId node) const {
  const auto found = names_.find(node);
  return found == names_.end() ? std::to_string(node) : found->second;
}

void Engine::note_node(std::string_view event, std::string_view node, EventFields fields) {
  try {
    events_.append_node(event, node, fields);
  } catch (const DiskFull& full) {
    setup_.log.warning(full.what());
  }
}

void Engine::notice() {
  dirty_ = true;
  changed_.notify_one();
}

}  // namespace hansa::coordinator
