// hansa_wire_bench [MB] [CLIENTS] [ADDRESS]: one server process, CLIENTS client processes, all on this machine. In each of
// three rounds each client pulls MB from a mapped file into a file of its own, then uploads as much from it. Prints the seconds of each direction,
// the server's anonymous memory above idle, the longest time between two heartbeats (sent every 20 ms); and processor seconds, which a
// busy machine changes less.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "base/ids.hpp"
#include "wire/client.hpp"
#include "wire/server.hpp"

namespace {
using namespace hansa;
using namespace hansa::wire;

constexpr int kRounds = 3;  // the later ones write over files that are in the page cache

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  return fmt::format("{:.2f} user + {:.2f} system", usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6,
                     usage.ru_stime.tv_sec + usage.ru_stime.tv_usec / 1e6);
}

std::uint64_t anonymous_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::stoull(line.substr(8));
  }
  return 0;
}

// HANSA_BENCH_DISCARD=1 leaves the files out, which shows the wire alone.
bool discard() { return std::getenv("HANSA_BENCH_DISCARD") != nullptr; }

class FileTarget final : public UploadTarget {
 public:
  explicit FileTarget(const std::string& path) : path_(path), file_(open_file(path, O_RDWR | O_CREAT)) {}
  std::uint64_t held() const override { return held_; }
  std::optional<Fault> write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (!discard()) write_all_at(file_.get(), offset, bytes, path_);
    sum_.add(bytes);
    held_ += bytes.size();
    return std::nullopt;
  }
  void commit(const BlobInfo& info, const Report&, Reply<Receipt> done) override {
    if (info.xxh3 != sum_.value()) return done(Fault{FaultCode::BadChecksum, "the whole differs"});
    done(Receipt{.round = 1, .accepted = true});
  }
  void abandon(std::string) override {}

 private:
  std::string path_;
  FileDescriptor file_;
  RunningChecksum sum_;
  std::uint64_t held_ = 0;
};

struct BenchService final : Service {
  struct Session final : NodeSession {
    Session(BenchService& of, std::string node) : service(of), name(std::move(node)) {}
    void next_work(std::uint64_t, Reply<WorkOffer> done) override {
      WorkOffer offer;
      offer.info.round = 1;
      offer.info.token = name;
      offer.info.max_upload_bytes = 1ull << 40;
      offer.info.pulls.push_back({.channel = "delta", .to_epoch = 1, .blob = service.blob});
      offer.sources.push_back(std::make_shared<MappedSource>(service.file));
      offer.upload = std::make_shared<FileTarget>(service.folder + "/up-" + name);
      done(std::move(offer));
    }
    void resume(const std::string&, Reply<WorkOffer> done) override { done(Fault{FaultCode::UnknownToken}); }
    Answer<std::string> pipeline(const std::string&) override { return std::string(); }
    Directive heartbeat(const std::string&, const Progress&) override {
      const double time = now();
      if (last > 0) service.longest_gap = std::max(service.longest_gap.load(), time - last);
      last = time;
      return {};
    }
    void leave() override { last = 0; }
    void disconnected() override {}
    BenchService& service;
    std::string name;
    double last = 0;
  };
  Answer<Joined> join(const Hello& hello, const Peer&) override {
    return Joined{std::make_unique<Session>(*this, hello.node),
                  Welcome{.run_id = "bench", .node_id = node_id(hello.node), .heartbeat_ms = 20}};
  }
  std::string folder;
  std::shared_ptr<const MappedFile> file;
  BlobInfo blob;
  std::atomic<double> longest_gap = 0;
};

void barrier(int ready_fd, int go_fd) {
  char byte = 0;
  (void)!write(ready_fd, &byte, 1);
  (void)!read(go_fd, &byte, 1);
}

int client(const std::string& folder, int number, int address_fd, int ready_fd, int go_fd) {
  char address[256] = {};
  (void)!read(address_fd, address, sizeof address);
  Client link(address);
  const std::string name = fmt::format("node-{}", number);
  if (!std::holds_alternative<Welcome>(link.join({.node = name}))) return 1;
  const std::string path = folder + "/down-" + name;
  const FileDescriptor file = open_file(path, O_RDWR | O_CREAT);
  for (int round = 0; round < kRounds; ++round) {
    const Offer offer = std::get<Offer>(link.next_work(0));
    barrier(ready_fd, go_fd);
    DownloadState state;
    const auto pulled = link.download(offer, 0, state, [&](std::uint64_t offset, std::span<const std::byte> bytes) {
      if (!discard()) write_all_at(file.get(), offset, bytes, path);
    });
    if (!std::holds_alternative<BlobInfo>(pulled)) return 2;
    const MappedFile mapped(discard() ? folder + "/version" : path);
    barrier(ready_fd, go_fd);
    UploadStream upload = link.start_upload(offer);
    upload.write_stable(mapped.bytes());
    if (!std::holds_alternative<Receipt>(upload.commit({}))) return 3;
    barrier(ready_fd, go_fd);
  }
  link.leave();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t size = (argc > 1 ? std::stoull(argv[1]) : 537) * 1'000'000;
  const int clients = argc > 2 ? std::stoi(argv[2]) : 2;
  std::string folder = "/tmp/hansa-wire-bench-XXXXXX";
  if (!mkdtemp(folder.data())) return 1;
  int address_pipe[2], ready[2];
  if (pipe(address_pipe) || pipe(ready)) return 1;
  std::vector<std::array<int, 2>> go(clients);  // one each: a fast client must not take another's signal
  std::vector<pid_t> children;
  for (int i = 0; i < clients; ++i) {
    if (pipe(go[i].data())) return 1;
    const pid_t child = fork();
    if (child == 0) _exit(client(folder, i, address_pipe[0], ready[1], go[i][0]));
    children.push_back(child);
  }
  BenchService service;
  service.folder = folder;
  {
    std::vector<std::uint64_t> words(size / 8);
    std::uint64_t value = 1;
    for (auto& word : words) word = value = value * 6364136223846793005u + 1442695040888963407u;
    const auto bytes = std::as_bytes(std::span(words));
    const std::string path = folder + "/version";
    write_all(open_file(path, O_RDWR | O_CREAT).get(), bytes, path);
    service.file = std::make_shared<const MappedFile>(path);
    service.blob = {.xxh3 = xxh3_128(bytes), .size = bytes.size()};
  }
  Server server(service, {.listen = argc > 3 ? argv[3] : "127.0.0.1:0"});
  const std::uint64_t idle_kib = anonymous_kib();
  for (int i = 0; i < clients; ++i) {
    std::string text = server.address();
    text.resize(256);
    (void)!write(address_pipe[1], text.data(), text.size());
  }
  std::atomic<bool> done = false;
  std::uint64_t peak_kib = 0;
  std::thread watch([&] {
    while (!done) {
      peak_kib = std::max(peak_kib, anonymous_kib());
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  char byte = 0;
  const auto await_all = [&] {
    for (int i = 0; i < clients; ++i) (void)!read(ready[0], &byte, 1);
  };
  const auto release_all = [&] {
    for (const auto& pipe : go) (void)!write(pipe[1], &byte, 1);
  };
  const double gib = static_cast<double>(service.blob.size) * clients / (1 << 30);
  for (int round = 0; round < kRounds; ++round) {
    await_all();
    const double start = now();
    release_all();
    await_all();
    const double down = now();
    release_all();
    await_all();
    const double up = now();
    fmt::print("round {}: down {:.2f} s ({:.2f} GiB/s), up {:.2f} s ({:.2f} GiB/s), longest heartbeat gap {:.0f} ms\n",
               round, down - start, gib / (down - start), up - down, gib / (up - down),
               service.longest_gap.exchange(0) * 1000);
    release_all();
  }
  int failed = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    failed += status != 0;
  }
  done = true;
  watch.join();
  server.stop();
  std::filesystem::remove_all(folder);
  fmt::print("{} clients x {} MB over {}: server +{:.1f} MiB{}\n", clients, service.blob.size / 1'000'000,
             server.address(), (peak_kib - idle_kib) / 1024.0, failed ? ", FAILED" : "");
  fmt::print("processor seconds: server {} (with {:.0f} MB written to begin with), clients {}\n",
             cpu_seconds(RUSAGE_SELF), size / 1e6, cpu_seconds(RUSAGE_CHILDREN));
  return failed;
}
