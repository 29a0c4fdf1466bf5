// The wire's view of the engine: one Session per joined node, one UploadSlot per piece of work. Called on the I/O thread;
// everything they share with the round thread is behind the engine's mutex. Private to coordinator/.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "coordinator/engine.hpp"

namespace hansa::coordinator {

class Session final : public wire::NodeSession {
 public:
  Session(Engine& engine, NodeId node, wire::Peer peer) : engine_(engine), node_(node), peer_(std::move(peer)) {}
  void next_work(std::uint64_t holds_epoch, wire::Reply<wire::WorkOffer> done) override;
  void resume(const std::string& token, wire::Reply<wire::WorkOffer> done) override;
  wire::Answer<std::string> pipeline(const std::string& digest) override;
  wire::Directive heartbeat(const std::string& token, const wire::Progress&) override;
  void leave() override {}
  void disconnected() override;

 private:
  friend class Engine;
  Engine& engine_;
  NodeId node_;
  wire::Peer peer_;
  std::uint64_t holds_ = 0;
  wire::Reply<wire::WorkOffer> waiting_;  // a long poll, until there is something to say
};

class UploadSlot final : public wire::UploadTarget, public std::enable_shared_from_this<UploadSlot> {
 public:
  UploadSlot(Engine& engine, WorkItem work, std::optional<SpoolFile> spool)
      : engine_(engine), work_(std::move(work)), spool_(std::move(spool)) {}
  std::uint64_t held() const override { return spool_ ? spool_->held() : 0; }
  std::optional<wire::Fault> write(std::uint64_t offset, std::span<const std::byte> bytes) override;
  void commit(const wire::BlobInfo&, const wire::Report&, wire::Reply<wire::Receipt>) override;
  void abandon(std::string reason) override;
  NodeId node() const { return work_.node; }
  // Seconds from the first chunk to the commit, and of reading it then. With the engine's mutex.
  double upload_seconds() const { return upload_seconds_; }
  double screen_seconds() const { return screen_seconds_; }

 private:
  void evaluated(const Claims&, const wire::Reply<wire::Receipt>&);
  void screen(const wire::BlobInfo&, const Claims&, const wire::Reply<wire::Receipt>&);  // screening thread

  Engine& engine_;
  WorkItem work_;
  std::optional<SpoolFile> spool_;  // nothing: an evaluation, which sends no bytes
  double first_chunk_at_ = 0, upload_seconds_ = 0, screen_seconds_ = 0;
};

}  // namespace hansa::coordinator
