#include "peers/group.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/file.hpp"
#include "peers/nccl.hpp"

namespace hansa::peers {
namespace {

using namespace std::chrono_literals;
constexpr std::chrono::milliseconds kMeeting = 5min, kStep = 1h;
// The first process may have nothing to do for days; when it goes, its connections break and all hear of it.
constexpr std::chrono::milliseconds kNextWork = 365 * 24h;
constexpr std::int64_t kPiece = 16 << 20;  // bytes of a file in memory at once

std::string message_of_current() {
  try {
    throw;
  } catch (const c10::Error& problem) {
    return problem.what_without_backtrace();
  } catch (const std::exception& problem) {
    return problem.what();
  }
}

class C10d final : public Transport {
 public:
  C10d(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, at::Device device)
      : cpu_(c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>("cpu", store), rank,
                                                         size,
                                                         c10d::ProcessGroupGloo::Options::create_default(kMeeting))) {
    if (device.is_cuda()) gpu_ = make_nccl(c10::make_intrusive<c10d::PrefixStore>("gpu", store), rank, size, device);
  }
  void sum(at::Tensor& tensor) override {
    c10d::AllreduceOptions options;
    options.timeout = kStep;
    if (tensor.is_cpu() || gpu_) return wait(*(tensor.is_cpu() ? cpu_ : gpu_), tensor, options);
    auto here = tensor.to(at::kCPU);
    wait(*cpu_, here, options);
    tensor.copy_(here);
  }
  void broadcast(at::Tensor& tensor) override {
    c10d::BroadcastOptions options;
    options.timeout = kNextWork;
    auto here = tensor.to(at::kCPU);
    std::vector<at::Tensor> one{here};
    cpu_->broadcast(one, options)->wait();
    if (!tensor.is_cpu()) tensor.copy_(here);
  }

 private:
  static void wait(c10d::Backend& with, at::Tensor& tensor, const c10d::AllreduceOptions& options) {
    std::vector<at::Tensor> one{tensor};
    with.allreduce(one, options)->wait();
  }
  c10::intrusive_ptr<c10d::Backend> cpu_, gpu_;  // gpu_: null where NCCL is missing
};

}  // namespace

std::unique_ptr<Group> Group::meet(const Launch& launch, at::Device device) {
  try {
    c10d::TCPStoreOptions options;
    options.port = launch.port;
    options.isServer = launch.rank == 0 && !launch.met_elsewhere;
    options.numWorkers = launch.size;
    options.waitWorkers = !launch.met_elsewhere;
    options.timeout = kMeeting;
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    store = c10::make_intrusive<c10d::PrefixStore>(fmt::format("hansa/{}", launch.attempt), store);
    return std::make_unique<Group>(
        launch.rank, launch.size,
        std::make_unique<C10d>(store, static_cast<int>(launch.rank), static_cast<int>(launch.size), device));
  } catch (const std::exception&) {
    throw Error(fmt::format("process {} of {} did not meet the others at {}:{} (MASTER_ADDR, MASTER_PORT): {}",
                            launch.rank, launch.size, launch.address, launch.port, message_of_current()));
  }
}

template <class Call>
void Group::calling(Call&& call) {
  try {
    const at::NoGradGuard no_grad;
    call();
  } catch (const std::exception&) {
    throw OutOfStep(fmt::format("process {} of {} lost the others: one of them has ended; see its own message ({})",
                                rank_, size_, message_of_current()));
  }
}

void Group::sum(at::Tensor& tensor) {
  calling([&] { transport_->sum(tensor); });
}

void Group::broadcast(at::Tensor& tensor) {
  calling([&] { transport_->broadcast(tensor); });
}

// One number says who failed first, and only then a message travels.
void Group::agree(std::string_view failure) {
  gave_up_ = false;
  auto failed = at::zeros({static_cast<std::int64_t>(size_)}, at::kDouble);
  if (!failure.empty()) failed[static_cast<std::int64_t>(rank_)] = static_cast<double>(failure.size());
  sum(failed);
  const std::span<const double> lengths(failed.const_data_ptr<double>(), size_);
  const auto first = std::ranges::find_if(lengths, [](double length) { return length > 0; });
  if (first == lengths.end()) return;
  const auto who = static_cast<std::size_t>(first - lengths.begin());
  auto letters = at::zeros({static_cast<std::int64_t>(*first)}, at::kByte);
  if (who == rank_) std::memcpy(letters.mutable_data_ptr(), failure.data(), failure.size());
  sum(letters);
  gave_up_ = true;
  const std::string message(static_cast<const char*>(letters.const_data_ptr()), letters.nbytes());
  throw Error(who == rank_ ? message : fmt::format("process {} of this node failed: {}", who, message));
}

void Group::broadcast(std::string& bytes) {
  auto length = at::zeros({1}, at::kLong);
  length.mutable_data_ptr<std::int64_t>()[0] = static_cast<std::int64_t>(bytes.size());
  broadcast(length);
  bytes.resize(static_cast<std::size_t>(length.const_data_ptr<std::int64_t>()[0]));
  if (bytes.empty()) return;
  auto letters = at::from_blob(bytes.data(), {static_cast<std::int64_t>(bytes.size())}, at::kByte);
  broadcast(letters);
}

void Group::broadcast_file(const std::filesystem::path& path) {
  auto length = at::zeros({1}, at::kLong);
  auto& bytes = length.mutable_data_ptr<std::int64_t>()[0];
  std::optional<MappedFile> whole;
  if (rank_ == 0) {
    whole.emplace(path);
    bytes = static_cast<std::int64_t>(whole->bytes().size());
  }
  broadcast(length);
  auto temporary = path;
  temporary += ".incoming";
  FileDescriptor file;
  if (rank_ != 0) file = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
  const auto buffer = at::empty({std::min(kPiece, bytes)}, at::kByte);
  for (std::int64_t at = 0; at < bytes; at += kPiece) {
    auto piece = buffer.narrow(0, 0, std::min(kPiece, bytes - at));
    auto* data = static_cast<std::byte*>(piece.mutable_data_ptr());
    if (whole) std::memcpy(data, whole->bytes().data() + at, piece.nbytes());
    broadcast(piece);
    if (rank_ != 0) write_all_at(file.get(), static_cast<std::uint64_t>(at), {data, piece.nbytes()}, temporary);
  }
  if (rank_ != 0) rename_into_place(temporary, path, Durability::Process);
}

}  // namespace hansa::peers
