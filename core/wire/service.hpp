// What the coordinator implements, and wire calls. Every method of Service, NodeSession, ByteSource and UploadTarget is
// called on the server's I/O thread only, one at a time, and must not block (a write into the page cache is fine). A Reply
// may be called from any thread, later or at once, one time; when it is dropped without a call the node gets `Busy`.
// Refusals are Fault values; an exception out of these methods is a bug, told to the node as such (the link stays up).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/file.hpp"
#include "wire/messages.hpp"

namespace hansa::wire {

template <class T>
using Reply = std::function<void(Answer<T>)>;

// Bytes to be pulled. They are sent from where they lie, without a copy, when a chunk starts and ends at a multiple of 8.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual std::uint64_t size() const = 0;
  // offset + count <= size(). Valid and unchanged for the life of the source.
  virtual std::span<const std::byte> read(std::uint64_t offset, std::uint64_t count) const = 0;
};

// A mapped file, or a part of it. Shared: many nodes pull from one map, and each source keeps it.
class MappedSource final : public ByteSource {
 public:
  explicit MappedSource(std::shared_ptr<const MappedFile> file) : file_(std::move(file)), bytes_(file_->bytes()) {}
  MappedSource(std::shared_ptr<const MappedFile> file, std::uint64_t offset, std::uint64_t count)
      : file_(std::move(file)), bytes_(file_->bytes().subspan(offset, count)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  std::span<const std::byte> read(std::uint64_t offset, std::uint64_t count) const override {
    return bytes_.subspan(offset, count);
  }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::span<const std::byte> bytes_;
};

// Where the upload of one piece of work lands. Outlives connections: a resumed work gets the same target, or one that
// holds the same prefix. wire checks each chunk's checksum, the order, max_upload_bytes and, at commit, that held() equals
// the stated size; a refusal (by wire or by write) is remembered per connection, later bytes are dropped, and commit
// answers with it without reaching the target, whose prefix stays for a resume.
class UploadTarget {
 public:
  virtual ~UploadTarget() = default;
  virtual std::uint64_t held() const = 0;  // length of the prefix that survives this process
  // offset == held(); takes all bytes or none. DiskFull and other Errors are answered as `Busy`.
  virtual std::optional<Fault> write(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  // All bytes are there; the target compares the whole checksum. An evaluation commits a report with size 0. May come
  // again, after a lost receipt: answer the same.
  virtual void commit(const BlobInfo&, const Report&, Reply<Receipt>) = 0;
  virtual void abandon(std::string reason) = 0;  // the node gives this work up
};

struct WorkOffer {
  WorkInfo info;
  std::vector<std::shared_ptr<const ByteSource>> sources;  // one for each info.pulls; shared: outlives a round's end
  std::shared_ptr<UploadTarget> upload;                    // shared with the coordinator and with later connections
};

// One joined connection. Destroyed on the I/O thread after disconnected(), or when the server stops.
class NodeSession {
 public:
  virtual ~NodeSession() = default;
  // Long poll: call `done` when there is work. A poll replaces an earlier one of this session, whose answer then goes
  // nowhere; an offer can be lost with its connection, so offer unfinished work again to a node that polls.
  virtual void next_work(std::uint64_t holds_epoch, Reply<WorkOffer> done) = 0;
  virtual void resume(const std::string& token,
                      Reply<WorkOffer> done) = 0;                       // after a broken link; UnknownToken when gone
  virtual Answer<std::string> pipeline(const std::string& digest) = 0;  // canonical bytes of the resolved pipeline
  virtual Directive heartbeat(const std::string& token, const Progress&) = 0;
  virtual void leave() = 0;         // a goodbye; disconnected() follows
  virtual void disconnected() = 0;  // the last call; Replies not yet given go nowhere
};

// The transport under a session. Kept as long as wanted (shared for that reason); any thread.
class Link {
 public:
  virtual ~Link() = default;
  virtual void close(std::string reason) = 0;  // disconnected() follows on the I/O thread
};
struct Peer {
  std::string address;   // "127.0.0.1:41234", "unix:/run/hansa.sock (pid 12, uid 1000)"
  std::string identity;  // who the transport says it is; empty without TLS
  std::shared_ptr<Link> link;
};
struct Joined {
  std::unique_ptr<NodeSession> session;
  Welcome welcome;
};

class Service {
 public:
  virtual ~Service() = default;
  // hello.protocol and hello.node have been checked. A name that is joined already: refuse with NameTaken, or close the
  // older Peer's link and accept.
  virtual Answer<Joined> join(const Hello&, const Peer&) = 0;
};

}  // namespace hansa::wire
