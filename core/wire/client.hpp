// The node's end of the wire: blocking calls for the node's main thread, over an own I/O thread that keeps the link, sends
// heartbeats for the work in hand and joins again by itself after a break. One thread makes the blocking calls;
// set_progress(), stopped(), linked() and an UploadStream's or download's callbacks as documented.
// Outcomes are values: the result, the coordinator's Fault, or LinkLost. hansa::Error only for a bad address, a failure
// inside the coordinator, or wrong use.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/digest.hpp"
#include "wire/messages.hpp"
#include "wire/server.hpp"

namespace hansa::wire {

struct LinkLost {
  std::string why;
  bool cancelled = false;  // by ClientOptions::cancel, not by the network
};
template <class T>
using Outcome = std::variant<T, Fault, LinkLost>;

struct ClientOptions {
  Exposure exposure = Exposure::LocalOnly;
  const std::atomic<bool>* cancel = nullptr;  // set by a signal handler: blocking calls return LinkLost within 0.1 s
  std::uint32_t backoff_ms = 100, backoff_max_ms = 10'000;  // doubled each time, with jitter
  std::uint32_t give_up_after_ms = 0;                       // of unsuccessful reconnecting; 0: never
};

class Client;
class Connection;  // internal: the I/O thread's side

// A piece of work and the capabilities that go with it. Cheap to copy; useless (LinkLost) once its link has broken: then
// reconnect() and resume(info.token) give a fresh one.
struct Offer {
  WorkInfo info;
  std::uint64_t held = 0;            // prefix of the upload that the coordinator has
  struct Handles;                    // internal
  std::shared_ptr<Handles> handles;  // shared between copies, and released on the I/O thread
};

// How far a download has come; kept by the caller across broken links. A file that holds the first `offset` bytes already:
// add them to `sum`.
struct DownloadState {
  std::uint64_t offset = 0;
  RunningChecksum sum;
};
// Called on the thread that called download(), in order, each byte once, with its chunk's checksum verified. The bytes lie
// in the message: copy what is to stay. An exception ends the download and reaches the caller.
using Sink = std::function<void(std::uint64_t offset, std::span<const std::byte> bytes)>;

// Pushes the bytes of one upload; used by one thread, any. Starts at byte 0 always: bytes that the coordinator holds are
// only added to the checksum. Keeps at most a few MiB. A broken link or a refusal makes writes no-ops; commit tells.
class UploadStream {
 public:
  UploadStream(UploadStream&&) noexcept;
  UploadStream& operator=(UploadStream&&) noexcept;
  ~UploadStream();  // without commit: the prefix sent so far stays with the coordinator for a resume
  void write(std::span<const std::byte> bytes);  // copies
  // Without a copy, from 256 KiB on: `bytes` stay valid and unchanged until commit() returned or the stream is gone, and start
  // at a multiple of 8 bytes (else they are copied). Smaller pieces are gathered.
  void write_stable(std::span<const std::byte> bytes);
  bool broken() const;  // writing more is useless; commit() says why
  // Waits for all bytes, states their checksum, and returns the coordinator's receipt. The work is over with a receipt.
  Outcome<Receipt> commit(const Report&, std::uint16_t format = 0);

 private:
  friend class Client;
  struct Impl;
  explicit UploadStream(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

class Client {
 public:
  Client(const std::string& address,
         ClientOptions = {});  // throws Error for a bad or forbidden address; does not connect
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  Outcome<Welcome> join(Hello);  // one attempt
  // Waits until the link is up again, trying with back-off and jitter; at once when it is. Also for the first join, when
  // join() found no coordinator. A Fault: the coordinator refused for good.
  Outcome<Welcome> reconnect();
  bool linked() const;  // any thread

  Outcome<Offer> next_work(std::uint64_t holds_epoch);  // waits; the offer becomes the work in hand
  Outcome<Offer> resume(const std::string& token);
  Outcome<std::string> pipeline(const std::string& digest);
  // Pulls offer.info.pulls[pull] from state.offset to the end, checks the whole, returns its info. BadChecksum: start anew.
  Outcome<BlobInfo> download(const Offer&, std::size_t pull, DownloadState&, const Sink&);
  UploadStream start_upload(const Offer&);
  Outcome<std::monostate> abandon(const Offer&, const std::string& reason);  // the work is over

  // Heartbeats go by themselves from an offer until its receipt, abandon() or drop_work(), also over a new link.
  void set_progress(Progress);  // any thread: what the next heartbeat says
  std::optional<std::string> stopped()
      const;         // any thread: the coordinator's reason to stop the work in hand. Transfers
                     // then end with Fault `Cancelled`.
  void drop_work();  // no more heartbeats for the work in hand
  void leave();      // says goodbye and closes; join() may follow

 private:
  friend class UploadStream;
  std::shared_ptr<Connection> connection_;  // shared with Offers and UploadStreams that may outlive this object's calls
};

}  // namespace hansa::wire
