#include "wire/client.hpp"

#include "wire/connection.hpp"
#include "wire/download.hpp"

namespace hansa::wire {
namespace {

LinkLost earlier_link() { return {"the offer belongs to an earlier link; resume the work"}; }

template <class Response>
Outcome<Offer> offer_in(Connection& connection, Response& response) {
  if (auto fault = fault_in(response)) return *fault;
  return connection.make_offer(response.getWork());
}

Outcome<Offer> take(Connection& connection, Outcome<Offer> outcome) {
  if (const auto* offer = std::get_if<Offer>(&outcome)) connection.take_work(offer->info.token);
  return outcome;
}

}  // namespace

Client::Client(const std::string& address, ClientOptions options)
    : connection_(std::make_shared<Connection>(parse_address(address, options.exposure), options)) {}
Client::~Client() = default;

Outcome<Welcome> Client::join(Hello hello) {
  if (hello.node.empty()) throw Error("A node needs a name to join.");
  return connection_->join(std::move(hello));
}
Outcome<Welcome> Client::reconnect() { return connection_->reconnect(); }
bool Client::linked() const { return connection_->linked(); }

Outcome<Offer> Client::next_work(std::uint64_t holds_epoch) {
  Connection& connection = *connection_;
  connection.drop_work();
  return take(connection, connection.ask<Offer>([&connection, holds_epoch] {
    auto request = connection.session().nextWorkRequest();
    request.setHoldsEpoch(holds_epoch);
    return request.send().then([&connection](auto&& response) { return offer_in(connection, response); });
  }));
}

Outcome<Offer> Client::resume(const std::string& token) {
  Connection& connection = *connection_;
  return take(connection, connection.ask<Offer>([&connection, token] {
    auto request = connection.session().resumeRequest();
    request.setToken(data_of(token));
    return request.send().then([&connection](auto&& response) { return offer_in(connection, response); });
  }));
}

Outcome<std::string> Client::pipeline(const std::string& digest) {
  Connection& connection = *connection_;
  return connection.ask<std::string>([&connection, digest] {
    auto request = connection.session().pipelineRequest();
    request.setDigest(text_of(digest));
    return request.send().then([](auto&& response) -> Outcome<std::string> {
      if (auto fault = fault_in(response)) return *fault;
      return string_of(response.getCanonical());
    });
  });
}

Outcome<BlobInfo> Client::download(const Offer& offer, std::size_t pull, DownloadState& state, const Sink& sink) {
  if (pull >= offer.info.pulls.size()) throw Error("The work has no such pull.");
  return wire::download(*connection_, offer, pull, state, sink);
}

Outcome<std::monostate> Client::abandon(const Offer& offer, const std::string& reason) {
  Connection& connection = *connection_;
  connection.drop_work(&offer.info.token);
  return connection.ask<std::monostate>([&connection, offer, reason]() -> kj::Promise<Outcome<std::monostate>> {
    auto* capabilities = connection.capabilities(offer);
    if (!capabilities) return Outcome<std::monostate>(earlier_link());
    auto request = capabilities->upload.abandonRequest();
    request.setReason(text_of(reason));
    return request.send().ignoreResult().then([]() -> Outcome<std::monostate> { return std::monostate(); });
  });
}

void Client::set_progress(Progress progress) { connection_->set_progress(std::move(progress)); }
std::optional<std::string> Client::stopped() const { return connection_->stopped(); }
void Client::drop_work() { connection_->drop_work(); }
void Client::leave() { connection_->leave(); }

}  // namespace hansa::wire
