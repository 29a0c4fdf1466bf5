#include "wire/server.hpp"

#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <unistd.h>

#include <map>

#include "base/log.hpp"
#include "wire/address.hpp"
#include "wire/chunks.hpp"
#include "wire/io_thread.hpp"
#include "wire/session.hpp"

namespace hansa::wire {
namespace {

constexpr kj::uint kAdoptListener = kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP |
                                    kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC |
                                    kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK;

// One accepted connection. Members die in reverse: the RPC system, then the network and its queue of messages, then the
// state with the sources that those messages point into.
struct ServerLink {
  ServerLink(kj::Own<kj::AsyncIoStream> connection, std::shared_ptr<LinkState> shared_state)
      : state(std::move(shared_state)),
        stream(kj::mv(connection)),
        network(*stream, capnp::rpc::twoparty::Side::SERVER),
        system(capnp::makeRpcServer(network, make_coordinator(state))) {
    system.setFlowLimit(kFlowLimitWords);
  }
  ~ServerLink() {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { state->close(); })) {
      Log().error("wire: while ending the session of " + state->peer.address + ": " + describe(*exception));
    }
  }

  std::shared_ptr<LinkState> state;  // shared with the capability objects
  kj::Own<kj::AsyncIoStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;
};

}  // namespace

struct Server::Impl {
  Impl(Service& served, ServerOptions given) : service(served), options(std::move(given)), io("hansa-wire") {
    FileDescriptor fd = listen_on(parse_address(options.listen, options.exposure));
    const Address bound = bound_address(fd.get());
    address = bound.text;
    io.run([&] {
      const int owned = fcntl(fd.get(), F_DUPFD_CLOEXEC, 0);
      listener = io.provider().wrapListenSocketFd(owned, kAdoptListener);
      accepting = accept_forever().eagerlyEvaluate(
          [](kj::Exception&& e) { Log().error("wire: accepting ended: " + describe(e)); });
    });
  }
  ~Impl() { stop(); }

  void stop() {
    if (std::exchange(stopped, true)) return;
    io.run([this] {
      accepting = nullptr;
      listener = nullptr;
      links.clear();
    });
    io.stop();
    if (address.starts_with("unix:")) unlink(address.c_str() + 5);
  }

  kj::Promise<void> accept_forever() {
    return listener->accept().then(
        [this](kj::Own<kj::AsyncIoStream> stream) {
          add(kj::mv(stream));
          return accept_forever();
        },
        [this](kj::Exception&& failure) {  // out of descriptors, say: others may close, so go on in a while
          Log().warning("wire: cannot accept a connection: " + describe(failure));
          return io.timer().afterDelay(100 * kj::MILLISECONDS).then([this] { return accept_forever(); });
        });
  }

  void add(kj::Own<kj::AsyncIoStream> stream) {
    const std::uint64_t number = ++last_link;
    KJ_IF_MAYBE (fd, stream->getFd()) {
      prepare_connection(*fd);
      Peer peer{.address = describe_peer(*fd), .link = std::make_shared<Closer>(*this, number)};
      auto state = std::make_shared<LinkState>(service, io.mailbox(), std::move(peer));
      auto link = std::make_unique<ServerLink>(kj::mv(stream), std::move(state));
      io.add_task(link->network.onDisconnect().then([this, number] { close_later(number); }));
      io.add_task(io.timer().afterDelay(options.join_within_ms * kj::MILLISECONDS).then([this, number] {
        close_silent(number);
      }));
      links.emplace(number, std::move(link));
    }
  }

  // Never from inside one of the connection's own callbacks.
  void close_later(std::uint64_t number) {
    io.mailbox()->post([this, number] { links.erase(number); });
  }

  void close_silent(std::uint64_t number) {
    const auto found = links.find(number);
    if (found == links.end() || found->second->state->session) return;
    Log().warning("wire: closed the connection from " + found->second->state->peer.address +
                  ", which did not join within " + std::to_string(options.join_within_ms) + " ms");
    close_later(number);
  }

  struct Closer final : Link {
    Closer(Impl& impl, std::uint64_t link) : mailbox(impl.io.mailbox()), server(impl), number(link) {}
    void close(std::string reason) override {
      // `server` lives as long as the mailbox runs what is posted.
      mailbox->post([this_server = &server, number = number, reason = std::move(reason)] {
        const auto found = this_server->links.find(number);
        if (found == this_server->links.end()) return;
        Log().info("wire: closing the connection from " + found->second->state->peer.address + ": " + reason);
        this_server->links.erase(found);
      });
    }
    std::shared_ptr<Mailbox> mailbox;
    Impl& server;
    std::uint64_t number;
  };

  Service& service;
  const ServerOptions options;
  std::string address;
  bool stopped = false;
  IoThread io;
  // On the I/O thread only; gone when it ends.
  kj::Own<kj::ConnectionReceiver> listener;
  kj::Promise<void> accepting = nullptr;
  std::uint64_t last_link = 0;
  std::map<std::uint64_t, std::unique_ptr<ServerLink>> links;
};

Server::Server(Service& service, ServerOptions options) : impl_(std::make_unique<Impl>(service, std::move(options))) {}
Server::~Server() = default;
const std::string& Server::address() const { return impl_->address; }
void Server::stop() { impl_->stop(); }

}  // namespace hansa::wire
