#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "wire/chunks.hpp"
#include "wire/connection.hpp"

namespace hansa::wire {
namespace {

constexpr std::chrono::seconds kDrainWithin{5};
constexpr std::size_t kWorthACall = 256u << 10;

using Buffer = std::vector<std::uint64_t>;  // words, so that chunks are sent from where they lie

// Chunks on their way, between the writing thread and the loop. Shared by both.
class Flow {
 public:
  // Waits until `bytes` more may be in flight; false when the stream is broken.
  bool make_room(Connection& connection, std::uint64_t bytes) {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (!broken_) broken_ = connection.cancelled_or_stopped();
      if (broken_) return false;
      if (in_flight_ == 0 || in_flight_ + bytes <= kWindowBytes) break;
      changed_.wait_for(lock, kLookUp);
    }
    in_flight_ += bytes;
    return true;
  }
  // Waits until nothing is in flight. Cancelled or stopped waits end early, with bytes in flight.
  std::optional<Interruption> drain(Connection& connection) {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (broken_ || in_flight_ == 0) return broken_;
      broken_ = connection.cancelled_or_stopped();
      if (!broken_) changed_.wait_for(lock, kLookUp);
    }
  }
  // True when the loop points into no more memory of the writer.
  bool wait_idle(std::chrono::seconds most) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, most, [&] { return in_flight_ == 0; });
  }
  void acknowledged(std::uint64_t bytes, std::shared_ptr<Buffer> buffer) {
    const std::lock_guard lock(mutex_);
    in_flight_ -= std::min(bytes, in_flight_);
    if (buffer) free_.push_back(std::move(buffer));
    changed_.notify_all();
  }
  // The link has been closed: nothing of it is in any queue.
  void break_off(std::string why) {
    const std::lock_guard lock(mutex_);
    if (!broken_) broken_ = LinkLost{std::move(why)};
    in_flight_ = 0;
    changed_.notify_all();
  }
  bool broken() {
    const std::lock_guard lock(mutex_);
    return broken_.has_value();
  }
  std::shared_ptr<Buffer> take_buffer(std::size_t words) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_shared<Buffer>(words);
    auto buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t in_flight_ = 0;
  std::optional<Interruption> broken_;
  std::vector<std::shared_ptr<Buffer>> free_;  // shared with the loop while in flight
};

}  // namespace

struct UploadStream::Impl {
  Impl(std::shared_ptr<Connection> on, const Offer& to)
      : connection(std::move(on)),
        offer(to),
        flow(std::make_shared<Flow>()),
        chunk_bytes(connection->welcome().chunk_bytes) {}
  ~Impl() {
    if (flow->wait_idle(std::chrono::seconds(0)) || (!connection->cancelled() && flow->wait_idle(kDrainWithin))) return;
    // The loop may still send from the caller's memory: only closing the link prevents that.
    connection->run([this] {
      if (auto* capabilities = connection->capabilities(offer)) connection->close_link(capabilities->link);
      flow->break_off("the upload was given up");
    });
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty() && !flow->broken()) {
      if (!buffer) buffer = flow->take_buffer((chunk_bytes + 7) / 8);
      const std::size_t count = std::min<std::size_t>(bytes.size(), chunk_bytes - filled);
      std::memcpy(buffer_bytes() + filled, bytes.data(), count);
      filled += count;
      bytes = bytes.subspan(count);
      if (filled == chunk_bytes) flush();
    }
  }

  // Small pieces are gathered: a call for each would cost more than the copy.
  void write_stable(std::span<const std::byte> bytes) {
    while (!bytes.empty() && !flow->broken()) {
      if (bytes.size() < kWorthACall) return write(bytes);
      flush();
      const auto chunk = bytes.first(std::min<std::size_t>(bytes.size(), chunk_bytes));
      send(chunk, nullptr);
      bytes = bytes.subspan(chunk.size());
    }
  }

  void flush() {
    if (filled == 0) return;
    const std::span<const std::byte> chunk(buffer_bytes(), std::exchange(filled, 0));
    send(chunk, std::exchange(buffer, nullptr));
  }

  std::byte* buffer_bytes() { return reinterpret_cast<std::byte*>(buffer->data()); }

  void send(std::span<const std::byte> chunk, std::shared_ptr<Buffer> keep) {
    sum.add(chunk);
    const std::uint64_t offset = position;
    position += chunk.size();
    if (position <= offer.held) return flow->acknowledged(0, std::move(keep));
    if (!flow->make_room(*connection, chunk.size())) return;
    connection->post([on = connection.get(), flow = flow, offer = offer, offset, chunk, sum = xxh3_64(chunk),
                      keep = std::move(keep)]() mutable {
      auto* capabilities = on->capabilities(offer);
      if (!capabilities) return flow->break_off("the offer belongs to an earlier link; resume the work");
      on->add_task(send_chunk(capabilities->upload, offset, chunk, sum)
                       .then([flow, chunk, keep]() mutable { flow->acknowledged(chunk.size(), std::move(keep)); },
                             [on, flow, keep, link = capabilities->link](kj::Exception&& exception) {
                               // Not here, inside a callback of the link.
                               on->post([on, flow, keep, link, why = describe(exception)]() mutable {
                                 on->close_link(link);
                                 flow->break_off(std::move(why));
                               });
                             }));
    });
  }

  Outcome<Receipt> commit(const Report& report, std::uint16_t format) {
    flush();
    if (auto interruption = flow->drain(*connection)) return as_outcome<Receipt>(std::move(*interruption));
    const BlobInfo info{.xxh3 = sum.value(), .size = position, .format = format};
    auto outcome = connection->ask<Receipt>(
        [on = connection.get(), offer = offer, info, report]() -> kj::Promise<Outcome<Receipt>> {
          auto* capabilities = on->capabilities(offer);
          if (!capabilities) return Outcome<Receipt>(LinkLost{"the offer belongs to an earlier link; resume the work"});
          auto request = capabilities->upload.commitRequest();
          wire::write(request.initInfo(), info);
          wire::write(request.initReport(), report);
          return request.send().then([](auto&& response) -> Outcome<Receipt> {
            if (auto fault = fault_in(response)) return *fault;
            return read(response.getReceipt());
          });
        });
    if (std::holds_alternative<Receipt>(outcome)) connection->drop_work(&offer.info.token);
    return outcome;
  }

  std::shared_ptr<Connection> connection;  // shared with the client, which may go first
  Offer offer;
  std::shared_ptr<Flow> flow;
  std::uint64_t chunk_bytes;
  std::uint64_t position = 0;  // of bytes sent, skipped or dropped
  RunningChecksum sum;
  std::shared_ptr<Buffer> buffer;  // shared with the loop once it is sent
  std::size_t filled = 0;
};

UploadStream::UploadStream(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UploadStream::UploadStream(UploadStream&&) noexcept = default;
UploadStream& UploadStream::operator=(UploadStream&&) noexcept = default;
UploadStream::~UploadStream() = default;
void UploadStream::write(std::span<const std::byte> bytes) { impl_->write(bytes); }
void UploadStream::write_stable(std::span<const std::byte> bytes) { impl_->write_stable(bytes); }
bool UploadStream::broken() const { return impl_->flow->broken(); }
Outcome<Receipt> UploadStream::commit(const Report& report, std::uint16_t format) {
  return impl_->commit(report, format);
}

UploadStream Client::start_upload(const Offer& offer) {
  return UploadStream(std::make_unique<UploadStream::Impl>(connection_, offer));
}

}  // namespace hansa::wire
