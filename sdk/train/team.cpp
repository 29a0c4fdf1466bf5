#include "train/team.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "base/digest.hpp"
#include "base/error.hpp"
#include "base/rng.hpp"

namespace hansa::train {

namespace {

constexpr std::size_t kMostSums = 16;               // that an objective may report beside its loss
constexpr std::uint64_t kDigestRange = 1ull << 20;  // whose square, summed over processes, a double still holds exactly

std::string message_of(const std::exception& problem) {
  const auto* torch = dynamic_cast<const c10::Error*>(&problem);
  return torch ? torch->what_without_backtrace() : problem.what();
}

}  // namespace

Batch part_of(const Batch& batch, std::size_t rank, std::size_t size) {
  const std::int64_t unit = batch.task == Task::Preference ? 2 : 1;
  const auto units = batch.tokens.size(0) / unit, parts = static_cast<std::int64_t>(size),
             index = static_cast<std::int64_t>(rank);
  const auto each = units / parts, longer = units % parts;
  const auto first = unit * (index * each + std::min(index, longer)), count = unit * (each + (index < longer ? 1 : 0));
  const auto rows = [&](const at::Tensor& table) { return table.defined() ? table.narrow(0, first, count) : table; };
  Batch part = batch;
  part.tokens = rows(batch.tokens);
  part.labels = rows(batch.labels);
  part.positions = rows(batch.positions);
  part.segments = rows(batch.segments);
  part.counted = part.labels.ge(0).sum().item<std::int64_t>();
  part.bytes = batch.counted == 0 ? 0 : batch.bytes * part.counted / batch.counted;
  return part;
}

Team::Team(Peers* peers, std::vector<at::Tensor> parameters)
    : peers_(peers && peers->size() > 1 ? peers : nullptr), parameters_(std::move(parameters)) {}

Batch Team::part_of(const Batch& batch) const {
  return peers_ ? train::part_of(batch, peers_->rank(), peers_->size()) : batch;
}

std::uint64_t Team::dropout_seed(std::uint64_t seed) const {
  return peers_ && peers_->rank() > 0 ? derive_seed(seed, "process", {peers_->rank()}) : seed;
}

void Team::together(const std::function<void()>& work) const {
  if (!peers_) return work();
  std::string failure;
  try {
    work();
  } catch (const std::exception& problem) {  // the others have to hear of it, or they would wait for this one's part
    failure = message_of(problem);
  }
  peers_->agree(failure);
}

void Team::sum(std::span<double> values) const {
  if (!peers_) return;
  auto all = at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::kDouble);
  peers_->sum(all);
}

void Team::sum(Metrics& values) const {
  if (!peers_) return;
  if (values.size() > kMostSums)
    throw Error(fmt::format("the trainer's objective reports {} sums; with several processes at most {} travel",
                            values.size(), kMostSums));
  std::vector<double> places(kMostSums, 0);
  for (std::size_t i = 0; i < values.size(); ++i) places[i] = values[i].second;
  sum(places);
  for (std::size_t i = 0; i < values.size(); ++i) values[i].second = places[i];
}

void Team::sum_gradients(std::span<double> beside) {
  if (!peers_) return;
  const at::NoGradGuard no_grad;
  const auto count = parameters_.size();
  const auto digest = static_cast<double>(seen_ % kDigestRange);
  std::vector<double> values{digest, digest * digest};
  for (const auto& parameter : parameters_) values.push_back(parameter.grad().defined() ? 1 : 0);
  values.insert(values.end(), beside.begin(), beside.end());
  sum(values);
  require_same(values[0], values[1]);
  std::copy(values.end() - static_cast<std::ptrdiff_t>(beside.size()), values.end(), beside.begin());
  const std::span<const double> users(values.data() + 2, count);
  std::int64_t used = 0, whole = 0;
  for (std::size_t i = 0; i < count; ++i) {
    whole += parameters_[i].numel();
    if (users[i] > 0) used += parameters_[i].numel();
  }
  if (used == 0) return;
  if (!gradients_.defined()) gradients_ = at::empty({whole}, parameters_.front().options().requires_grad(false));
  auto buffer = gradients_.narrow(0, 0, used);
  std::int64_t at = 0;
  const auto next = [&](const at::Tensor& parameter) {
    const auto slice = buffer.narrow(0, at, parameter.numel());
    at += parameter.numel();
    return slice.view(parameter.sizes());
  };
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (users[i] == 0) continue;
    auto slice = next(parameters_[i]);
    if (parameters_[i].grad().defined())
      slice.copy_(parameters_[i].grad());
    else
      slice.zero_();
  }
  peers_->sum(buffer);
  at = 0;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (users[i] == 0) continue;
    auto& gradient = parameters_[i].mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(parameters_[i].detach());
    gradient.copy_(next(parameters_[i]));
  }
}

void Team::saw(const Batch& whole) {
  if (!peers_) return;
  const auto tokens = whole.tokens.contiguous();
  const auto* first = reinterpret_cast<const std::byte*>(tokens.const_data_ptr<std::int64_t>());
  seen_ = derive_seed(seen_, "batch", {xxh3_64({first, tokens.nbytes()})});
}

// The sum of all digests and that of their squares: only equal numbers have no variance.
void Team::require_same(double digests, double squares) const {
  if (static_cast<double>(peers_->size()) * squares == digests * digests) return;
  throw Error(
      "the processes of this node read different text: each needs the same --data and --model, on every machine that "
      "they run on; nothing is sent");
}

}  // namespace hansa::train
