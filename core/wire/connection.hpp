// Internal. What Client, UploadStream and downloads share: the I/O thread, the link with its session, heartbeats and the
// way back after a break. The blocking half runs on the node's threads and reaches the loop through the mailbox; members
// marked (io) belong to the I/O thread, those marked (lock) to the mutex.
#pragma once
#include <capnp/rpc-twoparty.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <vector>

#include "base/error.hpp"
#include "base/rng.hpp"
#include "hansa.capnp.h"
#include "wire/address.hpp"
#include "wire/client.hpp"
#include "wire/convert.hpp"
#include "wire/io_thread.hpp"

namespace hansa::wire {

using Interruption = std::variant<Fault, LinkLost>;
inline constexpr std::chrono::milliseconds kLookUp{100};  // how often a waiting thread looks at the cancel flag

template <class T>
Outcome<T> as_outcome(Interruption interruption) {
  return std::visit([](auto& value) -> Outcome<T> { return std::move(value); }, interruption);
}

// Where an answer from the loop is waited for. Shared: the waiting thread may have given up.
template <class T>
class Slot {
 public:
  void settle(Outcome<T> outcome) {
    const std::lock_guard lock(mutex_);
    outcome_ = std::move(outcome);
    changed_.notify_all();
  }
  void fail(const kj::Exception& exception) {
    const auto type = exception.getType();
    if (type == kj::Exception::Type::DISCONNECTED || type == kj::Exception::Type::OVERLOADED) {
      return settle(LinkLost{describe(exception)});
    }
    const std::lock_guard lock(mutex_);
    failure_ = describe(exception);
    changed_.notify_all();
  }
  // `interrupted` says, every now and then, whether to give up.
  template <class F>
  Outcome<T> wait(F interrupted) {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (failure_) throw Error("The coordinator failed at this request: " + *failure_);
      if (outcome_) return std::move(*outcome_);
      if (auto interruption = interrupted()) return as_outcome<T>(std::move(*interruption));
      changed_.wait_for(lock, kLookUp);
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Outcome<T>> outcome_;
  std::optional<std::string> failure_;
};

struct ClientLink;

struct Offer::Handles {  // the capabilities are with the Connection, under this number
  Handles(std::shared_ptr<Mailbox> its_mailbox, Connection& of, std::uint64_t its_number)
      : mailbox(std::move(its_mailbox)), connection(of), number(its_number) {}
  ~Handles();
  const std::shared_ptr<Mailbox> mailbox;  // shared: an offer may outlive its client
  Connection& connection;                  // lives as long as the mailbox runs what is posted
  const std::uint64_t number;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Capabilities {  // of one offer
    std::uint64_t link;
    rpc::Upload::Client upload;
    std::vector<rpc::BlobSource::Client> sources;
  };

  Connection(Address address, ClientOptions options);
  ~Connection() noexcept(false);

  // ---- the node's threads
  // Runs `question` on the loop and waits for the outcome that it promises.
  template <class T, class F>
  Outcome<T> ask(F question);
  std::optional<Interruption> cancelled() const;             // by the flag
  std::optional<Interruption> cancelled_or_stopped() const;  // or by the coordinator
  void post(kj::Function<void()> task) { io_.mailbox()->post(kj::mv(task)); }
  void run(kj::Function<void()> task) { io_.run(kj::mv(task)); }
  Outcome<Welcome> join(Hello hello);
  Outcome<Welcome> reconnect();
  void leave();

  bool linked() const;
  Welcome welcome() const;
  void set_progress(Progress progress);
  std::optional<std::string> stopped() const;
  void take_work(const std::string& token);
  void drop_work(const std::string* only_token = nullptr);

  // ---- the I/O thread
  rpc::Session::Client& session();                 // throws "disconnected"
  Capabilities* capabilities(const Offer& offer);  // null: of an earlier link
  Outcome<Offer> make_offer(rpc::Work::Reader work);
  void add_task(kj::Promise<void> promise) { io_.add_task(kj::mv(promise)); }
  void forget_offer(std::uint64_t number) { offers_.erase(number); }
  void close_link(std::uint64_t number);  // from a mailbox task only
  const std::shared_ptr<Mailbox>& mailbox() const { return io_.mailbox(); }

 private:
  kj::Promise<Outcome<Welcome>> join_once();
  kj::Promise<Outcome<Welcome>> join_over(kj::Own<kj::AsyncIoStream> stream);
  void start_rejoining();
  kj::Promise<void> rejoin(std::uint64_t attempt_series, std::uint32_t delay_ms);
  void rejoined(Outcome<Welcome> outcome);
  std::uint32_t pause_before_next(const Outcome<Welcome>& outcome, std::uint32_t delay_ms);
  kj::Promise<void> heartbeats();
  kj::Promise<void> heartbeat();
  void obey(const std::string& token, const Directive& directive);

  const Address address_;
  const ClientOptions options_;

  mutable std::mutex mutex_;
  bool linked_ = false;                 // (lock)
  Welcome welcome_;                     // (lock)
  std::string token_;                   // (lock) of the work in hand
  Progress progress_;                   // (lock)
  std::optional<std::string> stopped_;  // (lock)

  IoThread io_;
  Hello hello_;                                                   // (io)
  std::unique_ptr<ClientLink> link_;                              // (io)
  std::uint64_t last_link_ = 0;                                   // (io)
  std::uint64_t series_ = 0;                                      // (io) of rejoining attempts; a new one ends the old
  bool rejoining_ = false;                                        // (io)
  std::chrono::steady_clock::time_point rejoining_since_;         // (io)
  std::vector<std::shared_ptr<Slot<Welcome>>> waiting_for_link_;  // (io) shared with the threads that wait
  std::uint64_t last_offer_ = 0;                                  // (io)
  std::map<std::uint64_t, Capabilities> offers_;                  // (io)
  SplitMix64 jitter_;                                             // (io)
};

template <class T, class F>
Outcome<T> Connection::ask(F question) {
  auto slot = std::make_shared<Slot<T>>();
  post([this, slot, question = std::move(question)]() mutable {
    add_task(kj::evalNow([&] { return question(); })
                 .then([slot](Outcome<T>&& outcome) { slot->settle(std::move(outcome)); },
                       [slot](kj::Exception&& exception) { slot->fail(exception); }));
  });
  return slot->wait([this] { return cancelled(); });
}

}  // namespace hansa::wire
