// For the tests of wire: a Service that serves random bytes, and a proxy that damages or cuts what passes through it.
#pragma once
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/ids.hpp"
#include "base/rng.hpp"
#include "wire/address.hpp"
#include "wire/client.hpp"
#include "wire/server.hpp"

namespace hansa::wire {

inline std::vector<std::byte> random_blob(std::size_t size, std::uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

class BlobInMemory : public ByteSource {
 public:
  explicit BlobInMemory(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  std::span<const std::byte> read(std::uint64_t offset, std::uint64_t count) const override {
    furthest_ = std::max(furthest_.load(), offset + count);
    return std::span(bytes_).subspan(offset, count);
  }
  std::span<const std::byte> bytes() const { return bytes_; }
  BlobInfo info() const { return {.xxh3 = xxh3_128(bytes_), .size = bytes_.size(), .format = 3}; }
  std::uint64_t furthest() const { return furthest_; }  // end of what the server has read

 private:
  std::vector<std::byte> bytes_;
  mutable std::atomic<std::uint64_t> furthest_ = 0;
};

// Read by tests only when no upload runs.
struct MemoryTarget final : UploadTarget {
  std::uint64_t held() const override { return bytes.size() - std::min<std::uint64_t>(lost, bytes.size()); }
  std::optional<Fault> write(std::uint64_t offset, std::span<const std::byte> more) override {
    if (offset != bytes.size()) return Fault{FaultCode::BadPayload, "wire promised another offset"};
    if (disk_is_full) throw DiskFull("no space left");
    bytes.insert(bytes.end(), more.begin(), more.end());
    return std::nullopt;
  }
  void commit(const BlobInfo& info, const Report& its_report, Reply<Receipt> done) override {
    ++commits;
    report = its_report;
    committed = info;
    if (info.xxh3 != xxh3_128(bytes)) return done(Fault{FaultCode::BadChecksum, "the whole is not what was announced"});
    done(Receipt{.round = 7, .accepted = true, .reason = "fine"});
  }
  void abandon(std::string why) override { abandoned = std::move(why); }

  std::vector<std::byte> bytes;
  std::uint64_t lost = 0;
  bool disk_is_full = false;
  int commits = 0;
  Report report;
  BlobInfo committed;
  std::string abandoned;
};

class FakeService final : public Service {
 public:
  // Settings, before a server runs.
  Welcome welcome{.run_id = "test", .chunk_bytes = 64u << 10, .heartbeat_ms = 5};
  std::shared_ptr<BlobInMemory> blob = std::make_shared<BlobInMemory>(random_blob((1u << 20) + 13, 1));
  std::uint64_t max_upload = 1u << 30;
  bool hold_polls = false;  // until a test answers them

  // What happened; guarded by `mutex`.
  std::mutex mutex;
  std::condition_variable changed;
  int joins = 0, leaves = 0, disconnects = 0, heartbeats = 0;
  Hello last_hello;
  std::string last_heartbeat_token;
  Progress last_progress;
  std::vector<Reply<WorkOffer>> polls;
  std::map<std::string, std::shared_ptr<MemoryTarget>> targets;
  std::set<std::shared_ptr<Link>> links;
  Directive directive;

  template <class F>
  void wait_until(F condition) {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, std::chrono::seconds(30), condition)) throw Error("the test waited in vain");
  }
  template <class F>
  auto look(F question) {
    const std::lock_guard lock(mutex);
    return question();
  }
  std::shared_ptr<MemoryTarget> target(const std::string& token) {
    const std::lock_guard lock(mutex);
    auto& target = targets[token];
    if (!target) target = std::make_shared<MemoryTarget>();
    return target;
  }
  void cut_all_links() {
    const std::lock_guard lock(mutex);
    for (const auto& link : links) link->close("the test cuts it");
  }
  WorkOffer offer(const std::string& token) {
    WorkOffer offer;
    offer.info = {.task = Task::Train,
                  .round = 7,
                  .attempt = 2,
                  .base_epoch = 6,
                  .view = "left",
                  .exchange = std::string("a\0b", 3),
                  .pipeline_digest = "abc",
                  .max_upload_bytes = max_upload,
                  .lease_ms = 1000,
                  .token = token};
    offer.info.settled.push_back({"earlier", true, "in time"});
    offer.info.pulls.push_back({.channel = "delta", .from_epoch = 5, .to_epoch = 6, .blob = blob->info()});
    offer.sources.push_back(blob);
    offer.upload = target(token);
    return offer;
  }

  Answer<Joined> join(const Hello& hello, const Peer& peer) override {
    if (hello.base_digest == "other") return Fault{FaultCode::BaseMismatch, "another base model", false};
    note([&] {
      ++joins;
      last_hello = hello;
      links.insert(peer.link);
    });
    Welcome its_welcome = welcome;
    its_welcome.node_id = node_id(hello.node);
    return Joined{std::make_unique<Session>(*this, hello.node), its_welcome};
  }

 private:
  struct Session final : NodeSession {
    Session(FakeService& of, std::string its_node) : service(of), node(std::move(its_node)) {}
    void next_work(std::uint64_t, Reply<WorkOffer> done) override {
      if (!service.hold_polls) return done(service.offer("work of " + node));
      service.note([&] { service.polls.push_back(std::move(done)); });
    }
    void resume(const std::string& token, Reply<WorkOffer> done) override {
      if (!service.look([&] { return service.targets.contains(token); })) {
        return done(Fault{FaultCode::UnknownToken, "no such work"});
      }
      done(service.offer(token));
    }
    Answer<std::string> pipeline(const std::string& digest) override {
      if (digest == "broken") throw std::runtime_error("a bug in the coordinator");
      if (digest != "abc") return Fault{FaultCode::BadPayload, "no such pipeline"};
      return std::string("[pipeline]\0", 11);
    }
    Directive heartbeat(const std::string& token, const Progress& progress) override {
      service.note([&] {
        ++service.heartbeats;
        service.last_heartbeat_token = token;
        service.last_progress = progress;
      });
      return service.look([&] { return service.directive; });
    }
    void leave() override {
      service.note([&] { ++service.leaves; });
    }
    void disconnected() override {
      service.note([&] { ++service.disconnects; });
    }
    FakeService& service;
    std::string node;
  };

  template <class F>
  void note(F change) {
    const std::lock_guard lock(mutex);
    change();
    changed.notify_all();
  }
};

// Passes one connection at a time on to `upstream`. When so many bytes have passed from client to server (up) or back
// (down), one byte is flipped, or the connection is cut; once each.
class Proxy {
 public:
  struct Plan {
    std::uint64_t flip_up_at = 0, flip_down_at = 0, cut_up_at = 0, cut_down_at = 0;  // 0: never
  };
  Proxy(const std::string& upstream, Plan plan)
      : upstream_(parse_address(upstream, Exposure::LocalOnly)),
        plan_(plan),
        listener_(listen_on(parse_address("127.0.0.1:0", Exposure::LocalOnly))),
        address_(bound_address(listener_.get()).text) {
    if (pipe(stop_) != 0) throw Error("no pipe");
    thread_ = std::thread([this] { run(); });
  }
  ~Proxy() {
    ::close(stop_[1]);
    thread_.join();
    ::close(stop_[0]);
  }
  const std::string& address() const { return address_; }

 private:
  bool readable(std::initializer_list<int> fds, std::vector<bool>& which) {
    std::vector<pollfd> polled{{.fd = stop_[0], .events = POLLIN}};
    for (const int fd : fds) polled.push_back({.fd = fd, .events = POLLIN});
    ::poll(polled.data(), polled.size(), -1);
    which.clear();
    for (std::size_t i = 1; i < polled.size(); ++i) which.push_back(polled[i].revents != 0);
    return polled[0].revents == 0;
  }
  void run() {
    std::vector<bool> ready;
    while (readable({listener_.get()}, ready)) {
      const FileDescriptor client(accept(listener_.get(), nullptr, nullptr));
      const FileDescriptor server(socket(upstream_.socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (!client || connect(server.get(), reinterpret_cast<const sockaddr*>(&upstream_.socket), upstream_.length) != 0)
        continue;
      std::uint64_t up = 0, down = 0;
      for (bool alive = true; alive && readable({client.get(), server.get()}, ready);) {
        if (ready[0]) alive = pass(client.get(), server.get(), up, plan_.flip_up_at, plan_.cut_up_at);
        if (alive && ready[1]) alive = pass(server.get(), client.get(), down, plan_.flip_down_at, plan_.cut_down_at);
      }
    }
  }
  static bool pass(int from, int to, std::uint64_t& passed, std::uint64_t& flip_at, std::uint64_t& cut_at) {
    char buffer[16384];
    const ssize_t count = read(from, buffer, sizeof buffer);
    if (count <= 0) return false;
    const std::uint64_t before = passed;
    passed += count;
    if (flip_at != 0 && flip_at >= before && flip_at < passed) buffer[std::exchange(flip_at, 0) - before] ^= 1;
    if (cut_at != 0 && passed > cut_at) return cut_at = 0, false;
    for (ssize_t done = 0; done < count;) {
      const ssize_t sent = send(to, buffer + done, count - done, MSG_NOSIGNAL);
      if (sent <= 0) return false;
      done += sent;
    }
    return true;
  }

  Address upstream_;
  Plan plan_;
  FileDescriptor listener_;
  std::string address_;
  int stop_[2] = {};
  std::thread thread_;
};

inline std::vector<std::byte> pull_all(Client& client, const Offer& offer) {
  std::vector<std::byte> bytes;
  DownloadState state;
  const auto outcome = client.download(offer, 0, state, [&](std::uint64_t offset, std::span<const std::byte> more) {
    if (offset != bytes.size()) throw Error("a chunk out of order");
    bytes.insert(bytes.end(), more.begin(), more.end());
  });
  if (!std::holds_alternative<BlobInfo>(outcome)) throw Error("the download failed");
  return bytes;
}

inline bool same(std::span<const std::byte> a, std::span<const std::byte> b) { return std::ranges::equal(a, b); }

}  // namespace hansa::wire
