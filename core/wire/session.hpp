// Internal. The server's capability objects for one connection. All on the I/O thread.
#pragma once
#include <kj/async.h>

#include <map>
#include <memory>
#include <set>
#include <string>

#include "hansa.capnp.h"
#include "wire/io_thread.hpp"
#include "wire/service.hpp"

namespace hansa::wire {

// What the objects of one connection share. They hold it (shared), because the peer may keep them, or calls on them, a
// little longer than the connection lives; then `closed` is true and calls fail.
class LinkState : public std::enable_shared_from_this<LinkState> {
 public:
  LinkState(Service& of, std::shared_ptr<Mailbox> its_mailbox, Peer its_peer)
      : service(of), mailbox(std::move(its_mailbox)), peer(std::move(its_peer)) {}

  // A promise for the answer to a question that the service may answer from any thread, and the Reply that does so.
  template <class T>
  struct Question {
    std::uint64_t number;
    kj::Promise<Answer<T>> promise;
    Reply<T> reply;
  };
  template <class T>
  Question<T> ask();
  template <class T>
  void answer(std::uint64_t question, Answer<T> answer);

  NodeSession& joined_session();  // throws "disconnected" when closed
  void close();                   // fails open questions, ends the session

  Service& service;
  const std::shared_ptr<Mailbox> mailbox;  // shared: replies outlive the server
  const Peer peer;
  Welcome welcome;
  std::unique_ptr<NodeSession> session;
  std::uint64_t open_poll = 0;
  // Sources whose bytes may stand in messages that are still queued: kept until the connection is gone.
  std::set<std::shared_ptr<const ByteSource>> pinned;

 private:
  struct Pending {
    virtual ~Pending() noexcept(false) = default;
    virtual void fail() = 0;
  };
  template <class T>
  struct PendingAnswer;

  bool closed_ = false;
  std::uint64_t last_question_ = 0;
  std::map<std::uint64_t, std::unique_ptr<Pending>> pending_;
};

// The bootstrap object of one connection.
rpc::Coordinator::Client make_coordinator(std::shared_ptr<LinkState>);

}  // namespace hansa::wire
