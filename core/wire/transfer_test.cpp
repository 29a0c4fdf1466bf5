#include "wire/chunks.hpp"
#include "wire/wire_fakes.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::wire;

namespace {

// A server and one joined node with work in hand.
struct Fixture {
  explicit Fixture(Proxy::Plan plan = {}, ServerOptions options = {})
      : server(service, std::move(options)), proxy(server.address(), plan), client(proxy.address(), {.backoff_ms = 1}) {
    REQUIRE(std::holds_alternative<Welcome>(client.join({.node = "alpha"})));
  }
  Offer next() { return std::get<Offer>(client.next_work(0)); }
  // A transfer may notice a break before the connection does; then the first new link is still the old one.
  Offer resume() {
    for (;;) {
      REQUIRE(std::holds_alternative<Welcome>(client.reconnect()));
      auto again = client.resume(kToken);
      if (std::holds_alternative<LinkLost>(again)) continue;
      return std::get<Offer>(again);
    }
  }
  std::shared_ptr<MemoryTarget> target() { return service.target(kToken); }

  static constexpr const char* kToken = "work of alpha";
  FakeService service;
  Server server;
  Proxy proxy;
  Client client;
};

Outcome<Receipt> upload(Client& client, const Offer& offer, std::span<const std::byte> bytes) {
  UploadStream stream = client.start_upload(offer);
  stream.write_stable(bytes);
  return stream.commit({.examples = 9}, 3);
}

FaultCode code_of(const Outcome<Receipt>& outcome) {
  REQUIRE(std::holds_alternative<Fault>(outcome));
  return std::get<Fault>(outcome).code;
}

}  // namespace

TEST_CASE("a download arrives whole, in order, and twice the same") {
  Fixture f;
  const Offer offer = f.next();
  CHECK(same(pull_all(f.client, offer), f.service.blob->bytes()));
  CHECK(same(pull_all(f.client, offer), f.service.blob->bytes()));
}

TEST_CASE("a download that breaks goes on where it stopped") {
  Fixture f({.cut_down_at = 400'000});
  std::vector<std::byte> bytes;
  DownloadState state;
  const Sink sink = [&](std::uint64_t offset, std::span<const std::byte> more) {
    REQUIRE(offset == bytes.size());
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  CHECK(std::holds_alternative<LinkLost>(f.client.download(f.next(), 0, state, sink)));
  CHECK(state.offset > 0);
  CHECK(state.offset < 400'000);
  CHECK(std::holds_alternative<BlobInfo>(f.client.download(f.resume(), 0, state, sink)));
  CHECK(same(bytes, f.service.blob->bytes()));
}

TEST_CASE("a chunk damaged on the way down is noticed, and the rest can be pulled again") {
  Fixture f({.flip_down_at = 300'000});
  const Offer offer = f.next();
  std::vector<std::byte> bytes;
  DownloadState state;
  const Sink sink = [&](std::uint64_t, std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  const auto damaged = f.client.download(offer, 0, state, sink);
  REQUIRE(std::holds_alternative<Fault>(damaged));
  CHECK(std::get<Fault>(damaged).code == FaultCode::BadChecksum);
  CHECK(std::holds_alternative<BlobInfo>(f.client.download(offer, 0, state, sink)));
  CHECK(same(bytes, f.service.blob->bytes()));
}

TEST_CASE("a download that is not what was announced is refused as a whole") {
  Fixture f;
  Offer offer = f.next();
  offer.info.pulls[0].blob.xxh3.low ^= 1;
  DownloadState state;
  const auto outcome = f.client.download(offer, 0, state, [](auto, auto) {});
  REQUIRE(std::holds_alternative<Fault>(outcome));
  CHECK(std::get<Fault>(outcome).code == FaultCode::BadChecksum);
  offer.info.pulls[0].blob.size -= 1;
  DownloadState again;
  CHECK(std::get<Fault>(f.client.download(offer, 0, again, [](auto, auto) {})).code == FaultCode::BadPayload);
}

TEST_CASE("a slow reader holds the coordinator back to one window") {
  Fixture f;
  f.service.blob = std::make_shared<BlobInMemory>(random_blob(12u << 20, 5));
  const Offer offer = f.next();
  DownloadState state;
  std::uint64_t most_ahead = 0;
  const auto outcome = f.client.download(offer, 0, state, [&](std::uint64_t offset, std::span<const std::byte>) {
    most_ahead = std::max(most_ahead, f.service.blob->furthest() - offset);
  });
  CHECK(std::holds_alternative<BlobInfo>(outcome));
  CHECK(most_ahead <= kWindowBytes + f.service.welcome.chunk_bytes);
}

TEST_CASE("an exception out of a sink reaches the caller and leaves the link usable") {
  Fixture f;
  const Offer offer = f.next();
  DownloadState state;
  CHECK_THROWS_WITH(f.client.download(offer, 0, state, [](auto, auto) { throw Error("disk full here"); }),
                    "disk full here");
  CHECK(state.offset == 0);
  CHECK(same(pull_all(f.client, offer), f.service.blob->bytes()));
}

TEST_CASE("an upload arrives whole, from stable memory, in pieces, and mixed") {
  Fixture f;
  const auto bytes = random_blob((1u << 20) + 77, 2);
  UploadStream stream = f.client.start_upload(f.next());
  const auto way = GENERATE(0, 1, 2);
  if (way == 0) stream.write_stable(bytes);
  if (way == 1) {
    for (std::size_t at = 0, step = 1; at < bytes.size(); at += step, step = step * 3 % 100'003 + 1) {
      stream.write(std::span(bytes).subspan(at, std::min(step, bytes.size() - at)));
    }
  }
  if (way == 2) {
    stream.write(std::span(bytes).first(1001));
    stream.write_stable(std::span(bytes).subspan(1001, 500'000));
    stream.write(std::span(bytes).subspan(501'001));
  }
  const auto outcome = stream.commit({.examples = 9, .metrics = {{"loss", 1.5}}}, 3);
  REQUIRE(std::holds_alternative<Receipt>(outcome));
  CHECK(std::get<Receipt>(outcome).accepted);
  CHECK(std::get<Receipt>(outcome).round == 7);
  CHECK(same(f.target()->bytes, bytes));
  CHECK(f.target()->committed.format == 3);
  CHECK(f.target()->report.examples == 9);
  CHECK(f.target()->report.metrics.at(0).value == 1.5);
}

TEST_CASE("an evaluation commits a report without bytes") {
  Fixture f;
  const auto outcome = f.client.start_upload(f.next()).commit({.examples = 4});
  REQUIRE(std::holds_alternative<Receipt>(outcome));
  CHECK(f.target()->committed.size == 0);
  CHECK(f.target()->report.examples == 4);
}

TEST_CASE("an upload that breaks goes on from the held prefix, and a commit may come twice") {
  Fixture f({.cut_up_at = 500'000});
  const auto bytes = random_blob(1u << 20, 3);
  CHECK(std::holds_alternative<LinkLost>(upload(f.client, f.next(), bytes)));
  f.service.wait_until([&] { return f.service.disconnects == 1; });
  const Offer offer = f.resume();
  CHECK(offer.held > 0);
  CHECK(offer.held < bytes.size());
  CHECK(offer.held == f.target()->bytes.size());
  REQUIRE(std::holds_alternative<Receipt>(upload(f.client, offer, bytes)));
  CHECK(same(f.target()->bytes, bytes));
  const Offer again = f.resume();
  CHECK(again.held == bytes.size());
  CHECK(std::holds_alternative<Receipt>(upload(f.client, again, bytes)));
  CHECK(f.target()->commits == 2);
}

TEST_CASE("a chunk damaged on the way up is remembered until commit, and resumed from before it") {
  Fixture f({.flip_up_at = 300'000});
  const auto bytes = random_blob(1u << 20, 4);
  CHECK(code_of(upload(f.client, f.next(), bytes)) == FaultCode::BadChecksum);
  CHECK(f.target()->commits == 0);
  const Offer offer = f.resume();
  CHECK(offer.held == 262'144);
  CHECK(std::holds_alternative<Receipt>(upload(f.client, offer, bytes)));
  CHECK(same(f.target()->bytes, bytes));
}

TEST_CASE("a prefix that is not the node's is found by the checksum of the whole") {
  Fixture f;
  f.target()->bytes = random_blob(65'536, 99);
  CHECK(code_of(upload(f.client, f.next(), random_blob(1u << 20, 6))) == FaultCode::BadChecksum);
}

TEST_CASE("a truncated upload is refused at commit") {
  Fixture f;
  f.target()->lost = 5;
  const auto outcome = upload(f.client, f.next(), random_blob(1000, 7));
  CHECK(code_of(outcome) == FaultCode::BadPayload);
  CHECK_THAT(std::get<Fault>(outcome).message, Catch::Contains("1000 bytes, but 995 have come"));
  CHECK(f.target()->commits == 0);
}

TEST_CASE("more bytes than the work allows are refused, and so is a full disk") {
  Fixture f;
  f.service.max_upload = 100'000;
  CHECK(code_of(upload(f.client, f.next(), random_blob(200'000, 8))) == FaultCode::TooLarge);
  CHECK(f.target()->bytes.size() <= 100'000);
  f.target()->disk_is_full = true;
  const auto outcome = upload(f.client, f.next(), random_blob(100'000, 9));
  CHECK(code_of(outcome) == FaultCode::Busy);
  CHECK(std::get<Fault>(outcome).retry);
}

TEST_CASE("work can be given up with a reason") {
  Fixture f;
  const Offer offer = f.next();
  CHECK(std::holds_alternative<std::monostate>(f.client.abandon(offer, "out of memory")));
  CHECK(f.target()->abandoned == "out of memory");
}

TEST_CASE("a stream left without commit keeps its prefix with the coordinator") {
  Fixture f;
  const auto bytes = random_blob(1u << 20, 10);
  {
    UploadStream stream = f.client.start_upload(f.next());
    stream.write_stable(bytes);
  }
  CHECK(std::get<Offer>(f.client.resume(Fixture::kToken)).held == 1u << 20);
}

TEST_CASE("an unknown token is refused, and an offer of an earlier link is a lost link") {
  Fixture f;
  const Offer offer = f.next();
  CHECK(std::get<Fault>(f.client.resume("nonsense")).code == FaultCode::UnknownToken);
  f.service.cut_all_links();
  f.service.wait_until([&] { return f.service.joins == 2; });
  REQUIRE(std::holds_alternative<Welcome>(f.client.reconnect()));
  CHECK(std::holds_alternative<LinkLost>(upload(f.client, offer, random_blob(10, 1))));
  DownloadState state;
  CHECK(std::holds_alternative<LinkLost>(f.client.download(offer, 0, state, [](auto, auto) {})));
}

TEST_CASE("heartbeats carry the progress, go on over a new link, and end with the work") {
  Fixture f;
  const Offer offer = f.next();
  f.client.set_progress({.stage = Stage::Training, .done = 3, .total = 10, .metrics = {{"loss", 2.5}}});
  f.service.wait_until([&] { return f.service.last_progress.done == 3; });
  CHECK(f.service.look([&] { return f.service.last_heartbeat_token; }) == Fixture::kToken);
  CHECK(f.service.look([&] { return f.service.last_progress.metrics.at(0).value; }) == 2.5);
  f.service.cut_all_links();
  f.service.wait_until([&] { return f.service.joins == 2; });
  const int before = f.service.look([&] { return f.service.heartbeats; });
  f.service.wait_until([&] { return f.service.heartbeats > before + 2; });
  REQUIRE(std::holds_alternative<Receipt>(upload(f.client, f.resume(), random_blob(10, 1))));
  CHECK_FALSE(f.client.stopped());
}

TEST_CASE("a directive to stop is seen, and ends transfers as cancelled") {
  Fixture f;
  const Offer offer = f.next();
  f.service.look([&] { return f.service.directive = {.what = Directive::What::Stop, .reason = "the round is over"}; });
  while (!f.client.stopped()) std::this_thread::yield();
  CHECK(*f.client.stopped() == "the round is over");
  CHECK(code_of(upload(f.client, offer, random_blob(1u << 20, 1))) == FaultCode::Cancelled);
  f.client.drop_work();
  CHECK_FALSE(f.client.stopped());
}

TEST_CASE("the server stops in the middle of transfers, and the nodes see a lost link") {
  Fixture f;
  f.service.blob = std::make_shared<BlobInMemory>(random_blob(16u << 20, 5));
  const Offer offer = f.next();
  DownloadState state;
  const auto down = f.client.download(offer, 0, state, [&](std::uint64_t offset, auto) {
    if (offset == 0) f.server.stop();
  });
  CHECK(std::holds_alternative<LinkLost>(down));
  CHECK(f.service.look([&] { return f.service.disconnects; }) == 1);
}

TEST_CASE("the server stops under an upload, and its memory may go at once") {
  Fixture f;
  const Offer offer = f.next();
  const auto bytes = random_blob(8u << 20, 5);
  UploadStream stream = f.client.start_upload(offer);
  stream.write_stable(std::span(bytes).first(4u << 20));
  f.server.stop();
  stream.write_stable(std::span(bytes).subspan(4u << 20));
  CHECK(std::holds_alternative<LinkLost>(stream.commit({})));
}

TEST_CASE("sixteen nodes move bytes both ways at once") {
  FakeService service;
  Server server(service, {});
  std::atomic<int> good = 0;
  std::vector<std::thread> nodes;
  for (int i = 0; i < 16; ++i) {
    nodes.emplace_back([&, i] {
      const std::string name = "node-" + std::to_string(i);
      Client client(server.address());
      if (!std::holds_alternative<Welcome>(client.join({.node = name}))) return;
      const Offer offer = std::get<Offer>(client.next_work(0));
      if (!same(pull_all(client, offer), service.blob->bytes())) return;
      const auto bytes = random_blob(300'000 + 1000 * i, i);
      if (!std::holds_alternative<Receipt>(upload(client, offer, bytes))) return;
      if (same(service.target("work of " + name)->bytes, bytes)) ++good;
      client.leave();
    });
  }
  for (auto& node : nodes) node.join();
  CHECK(good == 16);
}
