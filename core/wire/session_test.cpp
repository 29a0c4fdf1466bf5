#include <sys/stat.h>

#include "wire/wire_fakes.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::wire;

namespace {

std::string refusal_of(const ServerOptions& options) {
  FakeService service;
  try {
    const Server server(service, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A connection without any RPC, for misbehaviour.
class RawConnection {
 public:
  explicit RawConnection(const std::string& address) {
    const Address parsed = parse_address(address, Exposure::LocalOnly);
    fd_ = FileDescriptor(socket(parsed.socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(connect(fd_.get(), reinterpret_cast<const sockaddr*>(&parsed.socket), parsed.length) == 0);
  }
  void send(std::span<const std::byte> bytes) { (void)!::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  void wait_until_closed() {
    char buffer[4096];
    while (::read(fd_.get(), buffer, sizeof buffer) > 0) {
    }
  }

 private:
  FileDescriptor fd_;
};

Hello hello(const std::string& node) { return {.node = node, .build = "test", .examples = 5, .rank = 8}; }

}  // namespace

TEST_CASE("a node joins over TCP and over a Unix socket, and both sides know each other") {
  const TemporaryDirectory folder;
  const std::string listen = GENERATE(as<std::string>(), "127.0.0.1:0", "[::1]:0", "unix:");
  FakeService service;
  Server server(service, {.listen = listen == "unix:" ? listen + (folder.path() / "socket").string() : listen});
  Client client(server.address());
  Hello said = hello("alpha");
  said.plugins.push_back({"org.hansa.x", "1.2.3", "00ff"});
  said.resources.gpus = 3;
  const auto outcome = client.join(said);
  REQUIRE(std::holds_alternative<Welcome>(outcome));
  const auto& welcome = std::get<Welcome>(outcome);
  CHECK(welcome.run_id == "test");
  CHECK(welcome.node_id == node_id("alpha"));
  CHECK(welcome.protocol == kProtocol);
  CHECK(client.linked());
  const Hello heard = service.look([&] { return service.last_hello; });
  CHECK(heard.node == "alpha");
  CHECK(heard.plugins.at(0).version == "1.2.3");
  CHECK(heard.resources.gpus == 3);
  CHECK(heard.rank == 8);
}

TEST_CASE("an offer arrives whole") {
  FakeService service;
  Server server(service, {});
  Client client(server.address());
  client.join(hello("alpha"));
  const auto outcome = client.next_work(5);
  REQUIRE(std::holds_alternative<Offer>(outcome));
  const WorkInfo& work = std::get<Offer>(outcome).info;
  CHECK(work.round == 7);
  CHECK(work.attempt == 2);
  CHECK(work.view == "left");
  CHECK(work.exchange == std::string("a\0b", 3));
  CHECK(work.token == "work of alpha");
  CHECK(work.settled.at(0).applied);
  CHECK(work.pulls.at(0).channel == "delta");
  CHECK(work.pulls.at(0).blob.size == service.blob->size());
  CHECK(work.pulls.at(0).blob.xxh3 == service.blob->info().xxh3);
}

TEST_CASE("a refusal to join is a value, and the same client may try again") {
  FakeService service;
  Server server(service, {});
  Client client(server.address());
  Hello wrong = hello("alpha");
  wrong.base_digest = "other";
  const auto refused = client.join(wrong);
  REQUIRE(std::holds_alternative<Fault>(refused));
  CHECK(std::get<Fault>(refused).code == FaultCode::BaseMismatch);
  CHECK(std::get<Fault>(refused).message == "another base model");
  CHECK_FALSE(client.linked());
  CHECK(std::holds_alternative<Welcome>(client.join(hello("alpha"))));
}

TEST_CASE("another major version of the protocol and a bad name are refused before the service sees them") {
  FakeService service;
  Server server(service, {});
  Client client(server.address());
  Hello newer = hello("alpha");
  newer.protocol.major = 2;
  const auto refused = client.join(newer);
  REQUIRE(std::holds_alternative<Fault>(refused));
  CHECK(std::get<Fault>(refused).code == FaultCode::ProtocolVersion);
  CHECK(std::get<Fault>(refused).message.find("2.0") != std::string::npos);
  const auto unnamed = client.join(hello("../etc"));
  REQUIRE(std::holds_alternative<Fault>(unnamed));
  CHECK(std::get<Fault>(unnamed).code == FaultCode::BadPayload);
  CHECK(service.look([&] { return service.joins; }) == 0);
}

TEST_CASE("a long poll waits for an answer from another thread") {
  FakeService service;
  service.hold_polls = true;
  Server server(service, {});
  Client client(server.address());
  client.join(hello("alpha"));
  std::thread coordinator([&] {
    service.wait_until([&] { return service.polls.size() == 1; });
    service.polls[0](service.offer("later"));
  });
  const auto outcome = client.next_work(0);
  coordinator.join();
  REQUIRE(std::holds_alternative<Offer>(outcome));
  CHECK(std::get<Offer>(outcome).info.token == "later");
}

TEST_CASE("a poll that is dropped without an answer comes back as busy") {
  FakeService service;
  service.hold_polls = true;
  Server server(service, {});
  Client client(server.address());
  client.join(hello("alpha"));
  std::thread coordinator([&] {
    service.wait_until([&] { return service.polls.size() == 1; });
    service.look([&] {
      service.polls.clear();
      return 0;
    });
  });
  const auto outcome = client.next_work(0);
  coordinator.join();
  REQUIRE(std::holds_alternative<Fault>(outcome));
  CHECK(std::get<Fault>(outcome).code == FaultCode::Busy);
  CHECK(std::get<Fault>(outcome).retry);
}

TEST_CASE("a cancelled poll returns, and a later one takes its place") {
  FakeService service;
  service.hold_polls = true;
  Server server(service, {});
  std::atomic<bool> cancel = false;
  Client client(server.address(), {.cancel = &cancel});
  client.join(hello("alpha"));
  std::thread user([&] {
    service.wait_until([&] { return service.polls.size() == 1; });
    cancel = true;
  });
  const auto cancelled = client.next_work(0);
  user.join();
  REQUIRE(std::holds_alternative<LinkLost>(cancelled));
  CHECK(std::get<LinkLost>(cancelled).cancelled);
  cancel = false;
  std::thread coordinator([&] {
    service.wait_until([&] { return service.polls.size() == 2; });
    service.polls[0](service.offer("for nobody"));
    service.polls[1](service.offer("second"));
  });
  const auto outcome = client.next_work(0);
  coordinator.join();
  REQUIRE(std::holds_alternative<Offer>(outcome));
  CHECK(std::get<Offer>(outcome).info.token == "second");
}

TEST_CASE("an open poll ends with its connection, and an answer after that harms nobody") {
  FakeService service;
  service.hold_polls = true;
  Server server(service, {});
  Client client(server.address());
  client.join(hello("alpha"));
  std::thread coordinator([&] {
    service.wait_until([&] { return service.polls.size() == 1; });
    service.cut_all_links();
  });
  CHECK(std::holds_alternative<LinkLost>(client.next_work(0)));
  coordinator.join();
  service.wait_until([&] { return service.disconnects == 1; });
  service.polls[0](service.offer("too late"));
  CHECK(std::holds_alternative<Welcome>(client.reconnect()));
}

TEST_CASE("the pipeline comes by its digest; a bug in the coordinator is an Error and leaves the link up") {
  FakeService service;
  Server server(service, {});
  Client client(server.address());
  client.join(hello("alpha"));
  CHECK(std::get<std::string>(client.pipeline("abc")) == std::string("[pipeline]\0", 11));
  CHECK(std::get<Fault>(client.pipeline("x")).code == FaultCode::BadPayload);
  CHECK_THROWS_WITH(client.pipeline("broken"), Catch::Contains("a bug in the coordinator"));
  CHECK(std::holds_alternative<std::string>(client.pipeline("abc")));
}

TEST_CASE("a goodbye is heard before the connection closes") {
  FakeService service;
  Server server(service, {});
  Client client(server.address());
  client.join(hello("alpha"));
  client.leave();
  CHECK_FALSE(client.linked());
  service.wait_until([&] { return service.disconnects == 1; });
  CHECK(service.look([&] { return service.leaves; }) == 1);
}

TEST_CASE("a connection that says nothing is closed in time") {
  FakeService service;
  Server server(service, {.join_within_ms = 20});
  RawConnection silent(server.address());
  silent.wait_until_closed();
  CHECK(service.look([&] { return service.joins; }) == 0);
}

TEST_CASE("garbage closes its connection and nothing else") {
  FakeService service;
  Server server(service, {.join_within_ms = 200});
  Client client(server.address());
  client.join(hello("alpha"));
  std::vector<std::vector<std::byte>> garbage = {std::vector<std::byte>(4096, std::byte{0}),
                                                 std::vector<std::byte>(4096, std::byte{0xff}),
                                                 {std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},
                                                  std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0x7f}}};
  for (std::uint64_t seed = 0; seed < 20; ++seed) garbage.push_back(random_blob(100 + 150 * seed, seed));
  for (const auto& bytes : garbage) {
    RawConnection peer(server.address());
    peer.send(bytes);
    peer.wait_until_closed();
  }
  CHECK(std::holds_alternative<std::string>(client.pipeline("abc")));
  CHECK(service.look([&] { return service.joins; }) == 1);
}

TEST_CASE("a port in use is refused with what to do") {
  FakeService service;
  const Server server(service, {});
  CHECK_THAT(refusal_of({.listen = server.address()}),
             Catch::Contains("the port is in use") && Catch::Contains("ss -ltnp"));
}

TEST_CASE("plain text does not leave the machine unless told to") {
  CHECK_THAT(refusal_of({.listen = "0.0.0.0:0"}), Catch::Contains("--insecure-plaintext"));
  CHECK_THAT(refusal_of({.listen = "[::]:0"}), Catch::Contains("--insecure-plaintext"));
  CHECK_THROWS_WITH(Client("192.0.2.1:4600"), Catch::Contains("--insecure-plaintext"));
  CHECK(refusal_of({.listen = "0.0.0.0:0", .exposure = Exposure::PlaintextAnywhere}).empty());
}

TEST_CASE("what is not an address is said to be none") {
  const std::string text =
      GENERATE(as<std::string>(), "", "localhost", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:-1", ":80", "host:8x");
  CHECK_THAT(refusal_of({.listen = text}), Catch::Contains("is not an address"));
}

TEST_CASE("a Unix socket is for its owner; a stale one is replaced, a live one and a plain file are not") {
  const TemporaryDirectory folder;
  const std::string path = (folder.path() / "socket").string(), address = "unix:" + path;
  FakeService service;
  {
    const Server server(service, {.listen = address});
    struct stat status {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK_THAT(refusal_of({.listen = address}), Catch::Contains("another process listens there"));
    CHECK(std::holds_alternative<Welcome>(Client(address).join(hello("alpha"))));
  }
  CHECK_FALSE(std::filesystem::exists(path));
  { const FileDescriptor left_behind = listen_on(parse_address(address, Exposure::LocalOnly)); }
  REQUIRE(std::filesystem::exists(path));
  CHECK(refusal_of({.listen = address}).empty());
  write_file_atomically(path, "precious", Durability::Process);
  CHECK_THAT(refusal_of({.listen = address}), Catch::Contains("is not a socket"));
  CHECK(read_file(path) == "precious");
  CHECK_THAT(refusal_of({.listen = "unix:/" + std::string(200, 'x')}), Catch::Contains("shorter path"));
}

TEST_CASE("no coordinator is a lost link, and reconnect waits for one to come") {
  const TemporaryDirectory folder;
  const std::string address = "unix:" + (folder.path() / "socket").string();
  Client client(address, {.backoff_ms = 1, .backoff_max_ms = 4});
  CHECK(std::holds_alternative<LinkLost>(client.join(hello("alpha"))));
  FakeService service;
  std::unique_ptr<Server> server;
  std::thread coordinator([&] { server = std::make_unique<Server>(service, ServerOptions{.listen = address}); });
  CHECK(std::holds_alternative<Welcome>(client.reconnect()));
  coordinator.join();
}

TEST_CASE("reconnecting gives up when told to") {
  const TemporaryDirectory folder;
  Client client("unix:" + (folder.path() / "none").string(),
                {.backoff_ms = 1, .backoff_max_ms = 2, .give_up_after_ms = 10});
  client.join(hello("alpha"));
  CHECK(std::holds_alternative<LinkLost>(client.reconnect()));
}
