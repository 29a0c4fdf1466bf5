#include "wire/connection.hpp"

#include <fcntl.h>
#include <kj/debug.h>

#include <algorithm>

#include <fmt/format.h>

#include "wire/chunks.hpp"

namespace hansa::wire {
namespace {

constexpr kj::uint kAdoptFd = kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP |
                              kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC |
                              kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK;
constexpr auto kJoinWithin = 10 * kj::SECONDS;

std::uint64_t seed_from_system() {
  const std::string bytes = random_bytes(8);
  return xxh3_64(bytes);
}

capnp::rpc::twoparty::VatId::Reader server_id(capnp::MallocMessageBuilder& message) {
  auto id = message.initRoot<capnp::rpc::twoparty::VatId>();
  id.setSide(capnp::rpc::twoparty::Side::SERVER);
  return id.asReader();
}

}  // namespace

// Members die in reverse: heartbeats and capabilities, the RPC system, the network and its queue, the socket.
struct ClientLink {
  explicit ClientLink(kj::Own<kj::AsyncIoStream> connection)
      : stream(kj::mv(connection)),
        network(*stream, capnp::rpc::twoparty::Side::CLIENT),
        system(capnp::makeRpcClient(network)),
        coordinator(system.bootstrap(server_id(vat)).castAs<rpc::Coordinator>()) {
    system.setFlowLimit(kFlowLimitWords);
  }
  std::uint64_t number = 0;
  kj::Own<kj::AsyncIoStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;
  capnp::MallocMessageBuilder vat;
  rpc::Coordinator::Client coordinator;
  rpc::Session::Client session = nullptr;
  kj::Promise<void> heartbeats = nullptr;
};

Offer::Handles::~Handles() {
  mailbox->post([of = &connection, number = number] { of->forget_offer(number); });
}

Connection::Connection(Address address, ClientOptions options)
    : address_(std::move(address)), options_(options), io_("hansa-link"), jitter_(seed_from_system()) {}

Connection::~Connection() noexcept(false) {
  io_.run([this] {
    ++series_;
    offers_.clear();
    link_.reset();
  });
  io_.stop();
}

// ---- the node's threads

std::optional<Interruption> Connection::cancelled() const {
  if (options_.cancel && options_.cancel->load()) return LinkLost{"the wait was cancelled", true};
  return std::nullopt;
}

std::optional<Interruption> Connection::cancelled_or_stopped() const {
  if (auto interruption = cancelled()) return interruption;
  if (auto reason = stopped()) return Fault{FaultCode::Cancelled, *reason};
  return std::nullopt;
}

Outcome<Welcome> Connection::join(Hello hello) {
  return ask<Welcome>([this, hello = std::move(hello)]() mutable {
    hello_ = {};  // so that closing an older link starts no attempts of its own
    if (link_) close_link(link_->number);
    ++series_;
    rejoining_ = false;
    hello_ = std::move(hello);
    return join_once();
  });
}

Outcome<Welcome> Connection::reconnect() {
  auto slot = std::make_shared<Slot<Welcome>>();
  post([this, slot] {
    if (hello_.node.empty()) return slot->fail(KJ_EXCEPTION(FAILED, "reconnect() before join()"));
    if (link_) return slot->settle(welcome());
    waiting_for_link_.push_back(slot);
    start_rejoining();
  });
  return slot->wait([this] { return cancelled(); });
}

void Connection::leave() {
  drop_work();
  ask<std::monostate>([this]() -> kj::Promise<Outcome<std::monostate>> {
    ++series_;
    rejoining_ = false;
    if (!link_) return Outcome<std::monostate>();
    // Closing waits for the answer, else the goodbye could be lost with the connection.
    return session().leaveRequest().send().ignoreResult().then(
        []() -> Outcome<std::monostate> { return std::monostate(); });
  });
  run([this] {
    ++series_;
    hello_ = {};
    if (link_) close_link(link_->number);
  });
}

bool Connection::linked() const {
  const std::lock_guard lock(mutex_);
  return linked_;
}
Welcome Connection::welcome() const {
  const std::lock_guard lock(mutex_);
  return welcome_;
}
void Connection::set_progress(Progress progress) {
  const std::lock_guard lock(mutex_);
  progress_ = std::move(progress);
}
std::optional<std::string> Connection::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}
void Connection::take_work(const std::string& token) {
  const std::lock_guard lock(mutex_);
  token_ = token;
  progress_ = {};
  stopped_.reset();
}
void Connection::drop_work(const std::string* only_token) {
  const std::lock_guard lock(mutex_);
  if (only_token && token_ != *only_token) return;
  token_.clear();
  stopped_.reset();
}

// ---- the I/O thread

rpc::Session::Client& Connection::session() {
  if (!link_) kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "there is no connection to the coordinator"));
  return link_->session;
}

Connection::Capabilities* Connection::capabilities(const Offer& offer) {
  if (!offer.handles || &offer.handles->connection != this) return nullptr;
  const auto found = offers_.find(offer.handles->number);
  return found == offers_.end() ? nullptr : &found->second;
}

Outcome<Offer> Connection::make_offer(rpc::Work::Reader work) {
  Offer offer{.info = read(work), .held = work.getHeld()};
  Capabilities held{.link = link_->number, .upload = work.getUpload()};
  for (auto pull : work.getPull()) held.sources.push_back(pull.getSource());
  const std::uint64_t number = ++last_offer_;
  offers_.emplace(number, kj::mv(held));
  offer.handles = std::make_shared<Offer::Handles>(mailbox(), *this, number);
  return offer;
}

kj::Promise<Outcome<Welcome>> Connection::join_once() {
  const int fd = socket(address_.socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Outcome<Welcome>(LinkLost{"no socket can be made; are too many files open?"});
  prepare_connection(fd);
  auto connected = kj::evalNow([&] {  // a missing Unix socket throws at once
    return io_.provider().wrapConnectingSocketFd(fd, reinterpret_cast<const sockaddr*>(&address_.socket),
                                                 address_.length, kAdoptFd);
  });
  using Stream = kj::Maybe<kj::Own<kj::AsyncIoStream>>;
  auto reason = std::make_shared<std::string>();  // shared by two continuations
  auto joined = connected
                    .then([](kj::Own<kj::AsyncIoStream>&& stream) -> Stream { return kj::mv(stream); },
                          [reason](kj::Exception&& exception) -> Stream {
                            *reason = describe(exception);
                            return nullptr;
                          })
                    .then([this, reason](Stream&& stream) -> kj::Promise<Outcome<Welcome>> {
                      KJ_IF_MAYBE (open, stream) return join_over(kj::mv(*open));
                      return Outcome<Welcome>(
                          LinkLost{fmt::format("the coordinator at {} cannot be reached: {}", address_.text, *reason)});
                    });
  return io_.timer().timeoutAfter(kJoinWithin, kj::mv(joined));
}

kj::Promise<Outcome<Welcome>> Connection::join_over(kj::Own<kj::AsyncIoStream> stream) {
  auto link = std::make_unique<ClientLink>(kj::mv(stream));
  auto request = link->coordinator.joinRequest();
  write(request.initHello(), hello_);
  return request.send().then(
      [this, link = std::move(link), series = series_](auto&& response) mutable -> Outcome<Welcome> {
        auto refusal = fault_in(response);
        Welcome welcome = read(response.getWelcome());
        if (!refusal && welcome.protocol.major != kProtocol.major) {
          refusal = Fault{FaultCode::ProtocolVersion,
                          fmt::format("The coordinator speaks protocol {}.{}, this node {}.{}.", welcome.protocol.major,
                                      welcome.protocol.minor, kProtocol.major, kProtocol.minor)};
        }
        if (refusal || series != series_) {
          // Not here, inside a callback of the link.
          mailbox()->post([link = std::move(link)]() mutable { link.reset(); });
          if (refusal) return *refusal;
          return LinkLost{"joining was overtaken by another attempt"};
        }
        welcome.chunk_bytes = std::clamp(welcome.chunk_bytes, kChunkBytesLeast, kChunkBytesMost);
        link->number = ++last_link_;
        link->session = response.getSession();
        link_ = std::move(link);
        {
          const std::lock_guard lock(mutex_);
          linked_ = true;
          welcome_ = welcome;
        }
        link_->heartbeats =
            heartbeats().eagerlyEvaluate([](kj::Exception&&) {});  // the link is breaking: that is seen below
        add_task(link_->network.onDisconnect().then(
            [this, number = link_->number] { mailbox()->post([this, number] { close_link(number); }); }));
        return welcome;
      });
}

void Connection::close_link(std::uint64_t number) {
  if (!link_ || link_->number != number) return;
  {
    const std::lock_guard lock(mutex_);
    linked_ = false;
  }
  offers_.clear();
  link_.reset();
  if (!hello_.node.empty()) start_rejoining();
}

void Connection::start_rejoining() {
  if (rejoining_) return;
  rejoining_ = true;
  rejoining_since_ = std::chrono::steady_clock::now();
  add_task(rejoin(++series_, options_.backoff_ms));
}

kj::Promise<void> Connection::rejoin(std::uint64_t series, std::uint32_t delay_ms) {
  if (series != series_) return kj::READY_NOW;
  return join_once()
      .catch_([](kj::Exception&& exception) -> Outcome<Welcome> { return LinkLost{describe(exception)}; })
      .then([this, series, delay_ms](Outcome<Welcome>&& outcome) -> kj::Promise<void> {
        if (series != series_) return kj::READY_NOW;
        const std::uint32_t pause = pause_before_next(outcome, delay_ms);
        if (pause == 0) {
          rejoined(std::move(outcome));
          return kj::READY_NOW;
        }
        return io_.timer().afterDelay(pause * kj::MILLISECONDS).then([this, series, delay_ms] {
          return rejoin(series, std::min(delay_ms * 2, options_.backoff_max_ms));
        });
      });
}

// 0: no further attempt.
std::uint32_t Connection::pause_before_next(const Outcome<Welcome>& outcome, std::uint32_t delay_ms) {
  const auto* fault = std::get_if<Fault>(&outcome);
  if (std::holds_alternative<Welcome>(outcome) || (fault && !fault->retry)) return 0;
  const auto spent = std::chrono::steady_clock::now() - rejoining_since_;
  if (options_.give_up_after_ms != 0 && spent > std::chrono::milliseconds(options_.give_up_after_ms)) return 0;
  const auto jittered = static_cast<std::uint32_t>(delay_ms * (0.5 + 0.5 * jitter_.uniform()));
  return std::max({jittered, fault ? fault->after_ms : 0u, 1u});
}

void Connection::rejoined(Outcome<Welcome> outcome) {
  rejoining_ = false;
  if (const auto* fault = std::get_if<Fault>(&outcome)) {
    const std::lock_guard lock(mutex_);
    if (!token_.empty()) stopped_ = fault->message;
  }
  for (auto& slot : std::exchange(waiting_for_link_, {})) slot->settle(outcome);
}

kj::Promise<void> Connection::heartbeats() {
  const std::uint32_t interval = std::max(welcome().heartbeat_ms, 1u);
  return io_.timer().afterDelay(interval * kj::MILLISECONDS).then([this] { return heartbeat(); }).then([this] {
    return heartbeats();
  });
}

kj::Promise<void> Connection::heartbeat() {
  std::string token;
  Progress progress;
  {
    const std::lock_guard lock(mutex_);
    if (token_.empty()) return kj::READY_NOW;
    token = token_;
    progress = progress_;
  }
  auto request = link_->session.heartbeatRequest();
  request.setToken(data_of(token));
  write(request.initProgress(), progress);
  return request.send().then([this, token](auto&& response) { obey(token, read(response.getDirective())); },
                             [](kj::Exception&& exception) {
                               // A failure inside the coordinator: the next one may do better. A broken link ends the loop.
                               if (exception.getType() == kj::Exception::Type::DISCONNECTED)
                                 kj::throwFatalException(kj::mv(exception));
                             });
}

void Connection::obey(const std::string& token, const Directive& directive) {
  if (directive.what != Directive::What::Stop) return;
  const std::lock_guard lock(mutex_);
  if (token_ == token) stopped_ = directive.reason;
}

}  // namespace hansa::wire
