#include "coordinator/session.hpp"

#include <fmt/format.h>

#include "pipeline/upload.hpp"

namespace hansa::coordinator {
namespace {

wire::Fault fault_of(const Refusal& refusal) {
  using Code = Refusal::Code;
  wire::FaultCode code = wire::FaultCode::Busy;
  switch (refusal.code) {
    case Code::Busy: code = wire::FaultCode::Busy; break;
    case Code::NotSelected: code = wire::FaultCode::NotSelected; break;
    case Code::StaleRound: code = wire::FaultCode::StaleRound; break;
    case Code::UnknownToken: code = wire::FaultCode::UnknownToken; break;
    case Code::BadChecksum: code = wire::FaultCode::BadChecksum; break;
    case Code::BadPayload: code = wire::FaultCode::BadPayload; break;
    case Code::TooLarge: code = wire::FaultCode::TooLarge; break;
    case Code::Finished: code = wire::FaultCode::Finished; break;
  }
  return {code, refusal.message, refusal.retry, refusal.after_ms};
}

Claims claims_of(const wire::Report& report) {
  Claims claims{report.examples, report.tokens, report.steps, report.seconds, {}};
  for (const auto& metric : report.metrics) claims.metrics.emplace_back(metric.name, metric.value);
  return claims;
}

wire::Fault disk_full(const DiskFull& full, const Log& log) {
  log.warning(fmt::format("{}; a node is asked to send again later", full.what()));
  return {wire::FaultCode::Busy,
          fmt::format("the coordinator's disk is full ({}); nothing accepted was lost", full.what()), true, 2000};
}

}  // namespace

// ---- Session

void Session::next_work(std::uint64_t holds_epoch, wire::Reply<wire::WorkOffer> done) {
  const std::lock_guard lock(engine_.mutex_);
  holds_ = holds_epoch;
  waiting_ = std::move(done);
  engine_.serve(*this);
}

void Session::resume(const std::string& token, wire::Reply<wire::WorkOffer> done) {
  const std::lock_guard lock(engine_.mutex_);
  auto redeemed = engine_.machine_->redeem(token);
  if (const auto* refusal = std::get_if<Refusal>(&redeemed)) return done(fault_of(*refusal));
  const auto& found = std::get<RoundMachine::Redeemed>(redeemed);
  if (found.work.node != node_)
    return done(wire::Fault{wire::FaultCode::Unauthorised, "this work belongs to another node", false, 0});
  done(engine_.offer(found.work, holds_));
}

wire::Answer<std::string> Session::pipeline(const std::string& digest) {
  const std::lock_guard lock(engine_.mutex_);
  if (digest == engine_.pipeline_digest_) return engine_.canonical_;
  return wire::Fault{wire::FaultCode::BadPayload, fmt::format("no pipeline with digest {} here", digest), false, 0};
}

wire::Directive Session::heartbeat(const std::string& token, const wire::Progress& progress) {
  const std::lock_guard lock(engine_.mutex_);
  const auto answer =
      engine_.machine_->heartbeat(token, {static_cast<Progress::Stage>(progress.stage), progress.done, progress.total});
  if (answer.stop) return {wire::Directive::What::Stop, answer.reason, 0};
  return {};
}

void Session::disconnected() {
  const std::lock_guard lock(engine_.mutex_);
  waiting_ = nullptr;
  const auto found = engine_.sessions_.find(node_);
  if (found == engine_.sessions_.end() || found->second != this) return;  // a newer connection took its place
  engine_.sessions_.erase(found);
  engine_.machine_->disconnected(node_);
  engine_.note_node("node_left", engine_.name_of(node_));
  engine_.notice();
}

// ---- UploadSlot

std::optional<wire::Fault> UploadSlot::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (!spool_) return wire::Fault{wire::FaultCode::BadPayload, "an evaluation sends no bytes", false, 0};
  if (first_chunk_at_ == 0) first_chunk_at_ = engine_.setup_.clock.now();
  if (auto refusal = spool_->write(offset, bytes)) {
    if (refusal->code == Refusal::Code::Busy) engine_.setup_.log.warning(refusal->message);
    return fault_of(*refusal);
  }
  engine_.bytes_up_ += bytes.size();
  return std::nullopt;
}

void UploadSlot::commit(const wire::BlobInfo& blob, const wire::Report& report, wire::Reply<wire::Receipt> done) {
  const auto claims = claims_of(report);
  if (!spool_) return evaluated(claims, done);
  {
    const std::lock_guard lock(engine_.mutex_);
    upload_seconds_ = first_chunk_at_ == 0 ? 0 : engine_.setup_.clock.now() - first_chunk_at_;
  }
  engine_.screening_.post(
      [self = shared_from_this(), blob, claims, done = std::move(done)] { self->screen(blob, claims, done); });
}

void UploadSlot::evaluated(const Claims& claims, const wire::Reply<wire::Receipt>& done) {
  const std::lock_guard lock(engine_.mutex_);
  try {
    if (auto refusal = engine_.machine_->evaluated(work_.token, claims)) return done(fault_of(*refusal));
  } catch (const DiskFull& full) {
    return done(disk_full(full, engine_.setup_.log));
  }
  engine_.notice();
  done(wire::Receipt{work_.round, true, {}});
}

void UploadSlot::screen(const wire::BlobInfo& blob, const Claims& claims, const wire::Reply<wire::Receipt>& done) {
  try {
    pipeline::WorkOrder order;
    {
      const std::lock_guard lock(engine_.mutex_);
      auto redeemed = engine_.machine_->redeem(work_.token);
      if (const auto* refusal = std::get_if<Refusal>(&redeemed)) return done(fault_of(*refusal));
      if (const auto& receipt = std::get<RoundMachine::Redeemed>(redeemed).receipt) {
        return done(
            wire::Receipt{receipt->round, receipt->accepted, receipt->reason});  // the first answer was lost on its way
      }
      order = engine_.orders_.at(engine_.view_of(work_.node).name).order;
    }
    const double began = engine_.setup_.clock.now();
    if (auto refusal = spool_->seal(blob.size, blob.xxh3)) return done(fault_of(*refusal));
    const auto common = pipeline::common_seed(static_cast<std::uint64_t>(engine_.spec_.run.seed), work_.round);
    const auto named = engine_.is_private() ? std::nullopt : std::optional(work_.node);
    const auto verdict = pipeline::screen_upload(spool_->path(), order, engine_.stages_.codecs, common, named);

    const std::lock_guard lock(engine_.mutex_);
    screen_seconds_ = engine_.setup_.clock.now() - began;
    const auto name = engine_.name_of(work_.node);
    auto received = engine_.machine_->received(work_.token, {blob.size, blob.xxh3, claims, verdict.norm,
                                                             verdict.clip_factor, verdict.accepted, verdict.reason});
    if (const auto* refusal = std::get_if<Refusal>(&received)) return done(fault_of(*refusal));
    const auto& receipt = std::get<Receipt>(received);
    if (receipt.accepted) {
      engine_.note_node("upload_accepted", name,
                        {{"round", work_.round}, {"bytes", blob.size}, {"norm", verdict.norm}});
    } else {
      engine_.setup_.log.warning(fmt::format("round {}: {}", work_.round, receipt.reason));
      engine_.note_node("upload_refused", name, {{"round", work_.round}, {"reason", receipt.reason}});
    }
    engine_.notice();
    done(wire::Receipt{receipt.round, receipt.accepted, receipt.reason});
  } catch (const DiskFull& full) {
    done(disk_full(full, engine_.setup_.log));
  } catch (const std::exception& bad) {  // the RPC edge: the node hears it, the coordinator lives on
    done(wire::Fault{wire::FaultCode::Busy, fmt::format("the coordinator could not read the upload: {}", bad.what()),
                     true, 5000});
  }
}

void UploadSlot::abandon(std::string reason) {
  const std::lock_guard lock(engine_.mutex_);
  engine_.note_node("work_abandoned", engine_.name_of(work_.node), {{"round", work_.round}, {"reason", reason}});
  if (engine_.is_private())  // what went wrong may say what was in the data, and whose it was
    engine_.setup_.log.warning(fmt::format("a node gives up its work in round {}; its own log says why", work_.round));
  else
    engine_.setup_.log.warning(
        fmt::format("{} gives up its work in round {}: {}", engine_.name_of(work_.node), work_.round, reason));
  Upload nothing;
  nothing.reason = fmt::format("the node gave it up: {}", reason);
  try {
    if (work_.task == WorkItem::Task::Train)
      engine_.machine_->received(work_.token, nothing);
    else
      engine_.machine_->evaluated(work_.token, {});
  } catch (const DiskFull& full) {  // then its lease runs out instead
    engine_.setup_.log.warning(full.what());
  }
  engine_.notice();
}

}  // namespace hansa::coordinator
