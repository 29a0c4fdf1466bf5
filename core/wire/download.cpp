#include "wire/download.hpp"

#include <kj/debug.h>

#include <deque>

#include <fmt/format.h>

namespace hansa::wire {
namespace {

// Between the loop, which receives chunks, and the thread that takes them where they lie: a chunk's call is answered when
// it has been taken, so a slow reader slows the coordinator down and nothing piles up. Shared by the two and by the sink
// object that the coordinator holds.
struct Transfer {
  struct Chunk {
    std::uint64_t number = 0, offset = 0, xxh3 = 0;
    std::span<const std::byte> bytes;  // in the call's message, which waits
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Chunk> chunks;                      // (lock)
  std::optional<Outcome<std::monostate>> ended;  // (lock)
  std::optional<std::string> failure;            // (lock)

  // (io)
  bool closed = false;
  std::uint64_t last_number = 0;
  std::map<std::uint64_t, kj::Own<kj::PromiseFulfiller<void>>> waiting;

  void end(Outcome<std::monostate> outcome) {
    const std::lock_guard lock(mutex);
    ended = std::move(outcome);
    changed.notify_all();
  }
  void fail(const kj::Exception& exception) {
    if (exception.getType() == kj::Exception::Type::DISCONNECTED) return end(LinkLost{describe(exception)});
    const std::lock_guard lock(mutex);
    failure = describe(exception);
    changed.notify_all();
  }
  void taken(std::uint64_t number) {
    if (const auto found = waiting.find(number); found != waiting.end()) {
      found->second->fulfill();
      waiting.erase(found);
    }
  }
  void close() {
    closed = true;
    for (auto& [number, fulfiller] : std::exchange(waiting, {})) fulfiller->reject(no_more());
  }
  static kj::Exception no_more() { return KJ_EXCEPTION(FAILED, "the node takes no more of this blob"); }
};

class SinkObject final : public rpc::ByteSink::Server {
 public:
  explicit SinkObject(std::shared_ptr<Transfer> transfer) : transfer_(std::move(transfer)) {}

 protected:
  kj::Promise<void> write(WriteContext context) override {
    if (transfer_->closed) kj::throwFatalException(Transfer::no_more());
    auto params = context.getParams();
    auto taken = kj::newPromiseAndFulfiller<void>();
    const std::uint64_t number = ++transfer_->last_number;
    transfer_->waiting.emplace(number, kj::mv(taken.fulfiller));
    {
      const std::lock_guard lock(transfer_->mutex);
      transfer_->chunks.push_back({number, params.getOffset(), params.getXxh3(), bytes_of(params.getBytes())});
      transfer_->changed.notify_all();
    }
    return kj::mv(taken.promise);
  }

 private:
  std::shared_ptr<Transfer> transfer_;
};

void start(Connection& connection, std::shared_ptr<Transfer> transfer, const Offer& offer, std::size_t pull,
           std::uint64_t offset) {
  connection.post([&connection, transfer, offer, pull, offset] {
    auto* capabilities = connection.capabilities(offer);
    if (!capabilities) return transfer->end(LinkLost{"the offer belongs to an earlier link; resume the work"});
    auto request = capabilities->sources.at(pull).readRequest();
    request.setTo(kj::heap<SinkObject>(transfer));
    request.setOffset(offset);
    connection.add_task(request.send().then(
        [transfer](auto&& response) {
          auto fault = fault_in(response);
          transfer->end(fault ? Outcome<std::monostate>(*fault) : std::monostate());
        },
        [transfer](kj::Exception&& exception) { transfer->fail(exception); }));
  });
}

// The next chunk, or how the transfer ended. A broken link ends it even when chunks are left: they come again.
std::variant<Transfer::Chunk, Outcome<std::monostate>> wait_for_chunk(Connection& connection, Transfer& transfer) {
  std::unique_lock lock(transfer.mutex);
  for (;;) {
    if (transfer.failure) throw Error("The coordinator failed while sending: " + *transfer.failure);
    if (!transfer.chunks.empty()) {
      const auto chunk = transfer.chunks.front();
      transfer.chunks.pop_front();
      return chunk;
    }
    if (transfer.ended) return *transfer.ended;
    if (auto interruption = connection.cancelled_or_stopped())
      return as_outcome<std::monostate>(std::move(*interruption));
    transfer.changed.wait_for(lock, kLookUp);
  }
}

std::optional<Fault> take(const Transfer::Chunk& chunk, const BlobInfo& blob, DownloadState& state, const Sink& sink) {
  if (xxh3_64(chunk.bytes) != chunk.xxh3) {
    return Fault{FaultCode::BadChecksum,
                 fmt::format("The chunk at offset {} was damaged on the way; pull again.", chunk.offset), true};
  }
  if (chunk.offset != state.offset || chunk.bytes.size() > blob.size - state.offset) {
    return Fault{FaultCode::BadPayload,
                 fmt::format("The coordinator sent {} bytes at offset {} where {} of {} bytes were there.",
                             chunk.bytes.size(), chunk.offset, state.offset, blob.size)};
  }
  sink(chunk.offset, chunk.bytes);
  state.sum.add(chunk.bytes);
  state.offset += chunk.bytes.size();
  return std::nullopt;
}

Outcome<BlobInfo> check_whole(const BlobInfo& blob, const DownloadState& state) {
  if (state.offset != blob.size) {
    return Fault{FaultCode::BadPayload, fmt::format("The coordinator sent {} of {} bytes.", state.offset, blob.size),
                 true};
  }
  if (state.sum.value() != blob.xxh3) {
    return Fault{FaultCode::BadChecksum,
                 fmt::format("The {} bytes pulled have checksum {}, not {}; discard them and pull again.", blob.size,
                             state.sum.value().hex(), blob.xxh3.hex()),
                 true};
  }
  return blob;
}

// However the download ends, the chunks that wait are answered and no more are taken.
struct CloseAtEnd {
  Connection& connection;
  std::shared_ptr<Transfer> transfer;
  ~CloseAtEnd() {
    connection.post([transfer = transfer] { transfer->close(); });
  }
};

}  // namespace

Outcome<BlobInfo> download(Connection& connection, const Offer& offer, std::size_t pull, DownloadState& state,
                           const Sink& sink) {
  const BlobInfo& blob = offer.info.pulls[pull].blob;
  if (state.offset > blob.size) throw Error("The download starts beyond the end of the blob.");
  auto transfer = std::make_shared<Transfer>();
  const CloseAtEnd close_at_end{connection, transfer};
  start(connection, transfer, offer, pull, state.offset);
  for (;;) {
    auto next = wait_for_chunk(connection, *transfer);
    if (auto* ended = std::get_if<Outcome<std::monostate>>(&next)) {
      if (std::holds_alternative<std::monostate>(*ended)) return check_whole(blob, state);
      if (auto* fault = std::get_if<Fault>(ended)) return std::move(*fault);
      return std::get<LinkLost>(std::move(*ended));
    }
    const auto& chunk = std::get<Transfer::Chunk>(next);
    if (auto fault = take(chunk, blob, state, sink)) return *fault;
    connection.post([transfer, number = chunk.number] { transfer->taken(number); });
  }
}

}  // namespace hansa::wire
