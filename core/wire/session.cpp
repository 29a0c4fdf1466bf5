#include "wire/session.hpp"

#include <kj/debug.h>

#include <algorithm>

#include <fmt/format.h>

#include "base/ids.hpp"
#include "wire/chunks.hpp"
#include "wire/convert.hpp"

namespace hansa::wire {
namespace {

kj::Exception gone() { return KJ_EXCEPTION(DISCONNECTED, "the connection has been closed"); }

constexpr const char* kNoAnswer = "The coordinator dropped the request without an answer; ask again.";

// Gives an answer of its own when it is dropped without one.
template <class T>
class ReplySlot {
 public:
  ReplySlot(std::weak_ptr<LinkState> link, std::shared_ptr<Mailbox> mailbox, std::uint64_t question)
      : link_(std::move(link)), mailbox_(std::move(mailbox)), question_(question) {}
  ~ReplySlot() { give(Fault{FaultCode::Busy, kNoAnswer, true, 100}); }

  void give(Answer<T> answer) {
    if (given_.exchange(true)) return;
    mailbox_->post([link = link_, question = question_, answer = std::move(answer)]() mutable {
      if (auto state = link.lock()) state->answer(question, std::move(answer));
    });
  }

 private:
  std::weak_ptr<LinkState> link_;
  std::shared_ptr<Mailbox> mailbox_;
  std::uint64_t question_;
  std::atomic<bool> given_ = false;
};

// Pushes one source into one sink, keeping a window of chunks in flight.
class Push final : private kj::TaskSet::ErrorHandler {
 public:
  Push(std::shared_ptr<LinkState> link, std::shared_ptr<const ByteSource> source, rpc::ByteSink::Client sink,
       std::uint64_t offset)
      : link_(std::move(link)), source_(std::move(source)), sink_(kj::mv(sink)), offset_(offset), acks_(*this) {}

  // True when all was taken, false when the sink (or the link) failed.
  kj::Promise<bool> run() {
    const std::uint64_t chunk = link_->welcome.chunk_bytes;
    while (!failed_ && offset_ < source_->size() && in_flight_ + chunk <= std::max(kWindowBytes, chunk)) {
      const auto bytes = source_->read(offset_, std::min(chunk, source_->size() - offset_));
      in_flight_ += bytes.size();
      acks_.add(send_chunk(sink_, offset_, bytes, xxh3_64(bytes)).then([this, size = bytes.size()] {
        in_flight_ -= size;
        wake();
      }));
      offset_ += bytes.size();
    }
    if (failed_ || in_flight_ == 0) return finish();
    auto room = kj::newPromiseAndFulfiller<void>();
    room_ = kj::mv(room.fulfiller);
    return room.promise.then([this] { return run(); });
  }

 private:
  kj::Promise<bool> finish() {
    if (!failed_) return true;
    link_->pinned.insert(source_);
    return acks_.onEmpty().then([] { return false; });
  }
  void wake() {
    if (room_) room_->fulfill();
  }
  void taskFailed(kj::Exception&&) override {
    failed_ = true;
    wake();
  }

  std::shared_ptr<LinkState> link_;
  std::shared_ptr<const ByteSource> source_;
  rpc::ByteSink::Client sink_;
  std::uint64_t offset_;
  std::uint64_t in_flight_ = 0;
  bool failed_ = false;
  kj::Own<kj::PromiseFulfiller<void>> room_;
  kj::TaskSet acks_;
};

class SourceObject final : public rpc::BlobSource::Server {
 public:
  SourceObject(std::shared_ptr<LinkState> link, std::shared_ptr<const ByteSource> source)
      : link_(std::move(link)), source_(std::move(source)) {}

 protected:
  kj::Promise<void> read(ReadContext context) override {
    link_->joined_session();
    const std::uint64_t offset = context.getParams().getOffset();
    if (offset > source_->size()) {
      write(context.getResults().initFault(),
            Fault{FaultCode::BadPayload,
                  fmt::format("Cannot read from offset {}: the blob has {} bytes.", offset, source_->size())});
      return kj::READY_NOW;
    }
    auto push = kj::heap<Push>(link_, source_, context.getParams().getTo(), offset);
    context.releaseParams();
    auto done = push->run();
    return done.attach(kj::mv(push)).then([context](bool complete) mutable {
      if (complete) return;
      write(context.getResults().initFault(), Fault{FaultCode::Cancelled, "The reader took no more bytes.", true});
    });
  }

 private:
  std::shared_ptr<LinkState> link_;
  std::shared_ptr<const ByteSource> source_;
};

class UploadObject final : public rpc::Upload::Server {
 public:
  UploadObject(std::shared_ptr<LinkState> link, std::shared_ptr<UploadTarget> target, std::uint64_t most)
      : link_(std::move(link)), target_(std::move(target)), most_(most) {}

 protected:
  kj::Promise<void> write(WriteContext context) override {
    link_->joined_session();
    if (!fault_) {
      auto params = context.getParams();
      fault_ = take(params.getOffset(), bytes_of(params.getBytes()), params.getXxh3());
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> held(HeldContext context) override {
    link_->joined_session();
    context.getResults().setOffset(target_->held());
    return kj::READY_NOW;
  }

  kj::Promise<void> commit(CommitContext context) override {
    link_->joined_session();
    const BlobInfo info = wire::read(context.getParams().getInfo());
    if (!fault_ && info.size != target_->held()) {
      fault_ = Fault{FaultCode::BadPayload,
                     fmt::format("The upload is said to have {} bytes, but {} have come. Resume and send the rest.",
                                 info.size, target_->held()),
                     true};
    }
    if (fault_) {
      wire::write(context.getResults().initFault(), *fault_);
      return kj::READY_NOW;
    }
    auto question = link_->ask<Receipt>();
    target_->commit(info, wire::read(context.getParams().getReport()), std::move(question.reply));
    return question.promise.then([context](Answer<Receipt> answer) mutable {
      if (const auto* fault = std::get_if<Fault>(&answer)) {
        wire::write(context.getResults().initFault(), *fault);
      } else {
        wire::write(context.getResults().initReceipt(), std::get<Receipt>(answer));
      }
    });
  }

  kj::Promise<void> abandon(AbandonContext context) override {
    link_->joined_session();
    target_->abandon(string_of(context.getParams().getReason()));
    return kj::READY_NOW;
  }

 private:
  std::optional<Fault> take(std::uint64_t offset, std::span<const std::byte> bytes, std::uint64_t xxh3) {
    if (xxh3_64(bytes) != xxh3) {
      return Fault{FaultCode::BadChecksum,
                   fmt::format("The chunk at offset {} was damaged on the way. Resume and send from there.", offset),
                   true};
    }
    const std::uint64_t held = target_->held();
    if (offset > held) {
      return Fault{FaultCode::BadPayload,
                   fmt::format("A chunk came at offset {}, but only {} bytes are held. Resume and send from there.",
                               offset, held),
                   true};
    }
    const std::uint64_t known = held - offset;
    if (bytes.size() <= known) return std::nullopt;
    const auto fresh = bytes.subspan(known);
    if (held > most_ || fresh.size() > most_ - held) {
      return Fault{FaultCode::TooLarge,
                   fmt::format("The upload is longer than the {} bytes that this work allows.", most_)};
    }
    try {
      return target_->write(held, fresh);
    } catch (const Error& error) {
      return Fault{FaultCode::Busy, fmt::format("The coordinator cannot store the upload: {}", error.what()), true,
                   5000};
    }
  }

  std::shared_ptr<LinkState> link_;
  std::shared_ptr<UploadTarget> target_;
  std::uint64_t most_;
  std::optional<Fault> fault_;
};

// `results` is that of nextWork or resume.
template <class Results>
void write_offer(const std::shared_ptr<LinkState>& link, Results results, Answer<WorkOffer> answer) {
  if (const auto* fault = std::get_if<Fault>(&answer)) return write(results.initFault(), *fault);
  const auto& offer = std::get<WorkOffer>(answer);
  KJ_REQUIRE(offer.upload != nullptr && offer.sources.size() == offer.info.pulls.size(), "an incomplete WorkOffer");
  auto work = results.initWork();
  write(work, offer.info);
  auto pulls = work.getPull();
  for (std::size_t i = 0; i < offer.sources.size(); ++i) {
    pulls[i].setSource(kj::heap<SourceObject>(link, offer.sources[i]));
  }
  work.setHeld(offer.upload->held());
  work.setUpload(kj::heap<UploadObject>(link, offer.upload, offer.info.max_upload_bytes));
}

class SessionObject final : public rpc::Session::Server {
 public:
  explicit SessionObject(std::shared_ptr<LinkState> link) : link_(std::move(link)) {}

 protected:
  kj::Promise<void> nextWork(NextWorkContext context) override {
    NodeSession& session = link_->joined_session();
    if (link_->open_poll != 0) {
      link_->answer<WorkOffer>(link_->open_poll,
                               Fault{FaultCode::Cancelled, "A later poll has replaced this one.", false});
    }
    auto question = link_->ask<WorkOffer>();
    link_->open_poll = question.number;
    session.next_work(context.getParams().getHoldsEpoch(), std::move(question.reply));
    return question.promise.then([this, context](Answer<WorkOffer> answer) mutable {
      write_offer(link_, context.getResults(), std::move(answer));
    });
  }

  kj::Promise<void> resume(ResumeContext context) override {
    NodeSession& session = link_->joined_session();
    auto question = link_->ask<WorkOffer>();
    session.resume(string_of(context.getParams().getToken()), std::move(question.reply));
    return question.promise.then([this, context](Answer<WorkOffer> answer) mutable {
      write_offer(link_, context.getResults(), std::move(answer));
    });
  }

  kj::Promise<void> pipeline(PipelineContext context) override {
    auto answer = link_->joined_session().pipeline(string_of(context.getParams().getDigest()));
    if (const auto* fault = std::get_if<Fault>(&answer)) {
      write(context.getResults().initFault(), *fault);
    } else {
      context.getResults().setCanonical(data_of(std::get<std::string>(answer)));
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> heartbeat(HeartbeatContext context) override {
    auto params = context.getParams();
    write(context.getResults().initDirective(),
          link_->joined_session().heartbeat(string_of(params.getToken()), read(params.getProgress())));
    return kj::READY_NOW;
  }

  kj::Promise<void> leave(LeaveContext context) override {
    link_->joined_session().leave();
    return kj::READY_NOW;
  }

 private:
  std::shared_ptr<LinkState> link_;
};

class CoordinatorObject final : public rpc::Coordinator::Server {
 public:
  explicit CoordinatorObject(std::shared_ptr<LinkState> link) : link_(std::move(link)) {}

 protected:
  kj::Promise<void> join(JoinContext context) override {
    auto answer = accept(read(context.getParams().getHello()));
    auto results = context.getResults();
    if (const auto* fault = std::get_if<Fault>(&answer)) {
      write(results.initFault(), *fault);
      return kj::READY_NOW;
    }
    auto& joined = std::get<Joined>(answer);
    link_->welcome = std::move(joined.welcome);
    link_->welcome.chunk_bytes = std::clamp(link_->welcome.chunk_bytes, kChunkBytesLeast, kChunkBytesMost);
    link_->session = std::move(joined.session);
    write(results.initWelcome(), link_->welcome);
    results.setSession(kj::heap<SessionObject>(link_));
    return kj::READY_NOW;
  }

 private:
  Answer<Joined> accept(const Hello& hello) {
    if (link_->session) {
      return Fault{FaultCode::BadPayload, "This connection has joined already; open another one.", false};
    }
    if (hello.protocol.major != kProtocol.major) {
      return Fault{
          FaultCode::ProtocolVersion,
          fmt::format("The node speaks protocol {}.{}, this coordinator {}.{}; the majors must be equal. Run the same "
                      "version of Hansa on both.",
                      hello.protocol.major, hello.protocol.minor, kProtocol.major, kProtocol.minor)};
    }
    if (!is_node_name(hello.node)) {
      return Fault{
          FaultCode::BadPayload,
          "A node's name has 1 to 64 of the characters A-Z a-z 0-9 . _ - and does not start with a dot or a dash."};
    }
    return link_->service.join(hello, link_->peer);
  }

  std::shared_ptr<LinkState> link_;
};

}  // namespace

template <class T>
struct LinkState::PendingAnswer final : Pending {
  explicit PendingAnswer(kj::Own<kj::PromiseFulfiller<Answer<T>>> f) : fulfiller(kj::mv(f)) {}
  void fail() override { fulfiller->reject(gone()); }
  kj::Own<kj::PromiseFulfiller<Answer<T>>> fulfiller;
};

template <class T>
LinkState::Question<T> LinkState::ask() {
  auto pair = kj::newPromiseAndFulfiller<Answer<T>>();
  const std::uint64_t number = ++last_question_;
  pending_.emplace(number, std::make_unique<PendingAnswer<T>>(kj::mv(pair.fulfiller)));
  auto slot = std::make_shared<ReplySlot<T>>(weak_from_this(), mailbox, number);  // shared: a std::function is copied
  return {number, kj::mv(pair.promise), [slot](Answer<T> answer) { slot->give(std::move(answer)); }};
}

template <class T>
void LinkState::answer(std::uint64_t question, Answer<T> answer) {
  const auto found = pending_.find(question);
  if (found == pending_.end()) return;  // replaced, or the link has gone
  auto pending = std::move(found->second);
  pending_.erase(found);
  if (open_poll == question) open_poll = 0;
  static_cast<PendingAnswer<T>&>(*pending).fulfiller->fulfill(std::move(answer));
}

NodeSession& LinkState::joined_session() {
  if (closed_ || !session) kj::throwFatalException(gone());
  return *session;
}

void LinkState::close() {
  if (std::exchange(closed_, true)) return;
  for (auto& [number, pending] : std::exchange(pending_, {})) pending->fail();
  if (!session) return;
  session->disconnected();
  session.reset();
}

rpc::Coordinator::Client make_coordinator(std::shared_ptr<LinkState> link) {
  return kj::heap<CoordinatorObject>(std::move(link));
}

}  // namespace hansa::wire
