#include "trainer.hpp"

#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::fedkseed {

namespace {

constexpr std::int64_t kPart = 64 * static_cast<std::int64_t>(seeds::kGroup);  // elements of one thread's turn

seeds::Instructions chosen(Choice choice) {
  switch (choice) {
    case Choice::Auto: break;
    case Choice::Scalar: return seeds::Instructions::Scalar;
    case Choice::Avx2: return seeds::Instructions::Avx2;
    case Choice::Avx512: return seeds::Instructions::Avx512;
  }
  return seeds::fastest();
}

// All tensors that the adapter put into the model, live, in the order of its injections: the order of the directions.
std::vector<at::Tensor> live_tensors(Adapter& adapter) {
  std::vector<at::Tensor> all;
  for (const auto& injection : adapter.injections()) {
    if (const auto* pair = std::get_if<LowRank>(&injection.what)) {
      all.push_back(pair->A);
      all.push_back(pair->B);
    } else if (const auto* whole = std::get_if<Replace>(&injection.what)) {
      all.push_back(whole->weight);
      if (whole->bias.defined()) all.push_back(whole->bias);
    }
  }
  if (all.empty()) throw Error("fedkseed finds no parameter in what the adapter puts into the model");
  for (const auto& tensor : all)
    if (tensor.scalar_type() != at::kFloat) throw Error("fedkseed moves fp32 parameters only");
  return all;
}

// A tensor's elements in row-major order, on the CPU: in place, or in a copy that write_back() takes to it.
class Elements {
 public:
  explicit Elements(at::Tensor tensor) : tensor_(tensor.detach()), flat_(tensor_.to(at::kCPU).contiguous()) {}
  float* data() const { return flat_.mutable_data_ptr<float>(); }
  void write_back() {
    if (!flat_.is_same(tensor_)) tensor_.copy_(flat_);
  }

 private:
  at::Tensor tensor_, flat_;
};

// The candidate of a step: a number below `candidates` from a random word, without division's unevenness.
std::uint32_t candidate(std::uint64_t seed, std::uint64_t step, std::int64_t candidates) {
  const auto words = seeds::philox({static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32), 0, 0},
                                   {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return static_cast<std::uint32_t>((std::uint64_t{words[0]} * static_cast<std::uint64_t>(candidates)) >> 32);
}

void check_round(const Exchange& exchange, std::size_t live, std::int64_t candidates) {
  if (exchange.roles.size() != live)
    throw Error(
        fmt::format("the adapter trains {} tensors and puts {} into the model; fedkseed needs them to be the same, "
                    "as they are with the adapter `full`",
                    exchange.roles.size(), live));
  if (std::find(exchange.roles.begin(), exchange.roles.end(), Role::Frozen) != exchange.roles.end())
    throw Error("fedkseed moves all parameters of the adapter; a round in which some are frozen is not for it");
  if (exchange.up.empty() && exchange.down.empty()) return;  // a silo alone
  const bool derived =
      std::all_of(exchange.roles.begin(), exchange.roles.end(), [](Role role) { return role == Role::Derived; });
  const auto log = std::find_if(exchange.down.begin(), exchange.down.end(),
                                [](const Channel& channel) { return channel.name == seeds::kDownChannel; });
  if (!derived || log == exchange.down.end())
    throw Error(
        "the trainer fedkseed derives all weights from accumulators, which the aggregator `fedkseed` alone sends: "
        "set [aggregator] use = \"fedkseed\"");
  const auto theirs = log->layout.tensors.at(0).shape.at(0);
  if (theirs != candidates)
    throw Error(fmt::format("the aggregator has {} candidate seeds and the trainer {}; give both the same `seeds`",
                            theirs, candidates));
}

}  // namespace

FedKSeed::FedKSeed(Params params, Host& host) : params_(params), host_(host), with_(chosen(params.instructions)) {
  if (!seeds::available(with_))
    throw Error(fmt::format("fedkseed: this machine has no {} instructions; leave `instructions` at \"auto\"",
                            seeds::name_of(with_)));
}

template <class Body>
void FedKSeed::for_parts(const std::vector<at::Tensor>& tensors, const Body& body) const {
  struct Part {
    std::size_t tensor;
    std::int64_t first, count;
  };
  std::vector<Part> parts;
  std::vector<Elements> elements;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    elements.emplace_back(tensors[t]);
    for (std::int64_t first = 0; first < tensors[t].numel(); first += kPart)
      parts.push_back({t, first, std::min(kPart, tensors[t].numel() - first)});
  }
  host_.parallel_for(parts.size(), [&](std::size_t i) {
    if (host_.cancelled()) return;
    const auto& [tensor, first, count] = parts[i];
    body(seeds::Place{static_cast<std::uint32_t>(params_.family), static_cast<std::uint32_t>(tensor),
                      static_cast<std::uint64_t>(first)},
         std::span<float>(elements[tensor].data() + first, static_cast<std::size_t>(count)));
  });
  if (host_.cancelled()) throw Error("the work was cancelled");
  for (auto& each : elements) each.write_back();
}

void FedKSeed::receive(Model&, Adapter&, const Download& download) {
  if (download.channel != seeds::kDownChannel)
    throw Error(
        fmt::format("fedkseed has no use for channel '{}'; it needs the aggregator `fedkseed`", download.channel));
  if (download.anew && download.tensors.empty()) {
    accumulators_ = at::Tensor();
    return;
  }
  if (download.tensors.size() != 1) throw Error("fedkseed: an entry of the log holds one tensor of accumulators");
  const auto& entry = download.tensors.front().second;
  seeds::require_entry(entry, params_.seeds);
  if (!download.anew && !accumulators_.defined())
    throw Error(fmt::format("fedkseed: the entries of the log before version {} are missing", download.epoch));
  accumulators_ = seeds::sum(download.anew ? seeds::zero_accumulators(params_.seeds) : accumulators_, entry);
}

void FedKSeed::derive(Model&, Adapter& adapter) {
  const at::NoGradGuard no_grad;
  std::vector<seeds::Term> terms;
  for (std::int64_t k = 0; accumulators_.defined() && k < accumulators_.numel(); ++k) {
    const auto weight = static_cast<float>(accumulators_.const_data_ptr<c10::Half>()[k]);
    if (weight != 0) terms.push_back({static_cast<std::uint32_t>(k), weight});
  }
  const seeds::Rebuild how{.kept = static_cast<float>(1 - params_.learning_rate * params_.weight_decay),
                           .rate = static_cast<float>(params_.learning_rate)};
  for_parts(live_tensors(adapter), [&](const seeds::Place& place, std::span<float> part) {
    seeds::rebuild(with_, how, terms, place, part, part);
  });
}

double FedKSeed::loss(Model& model, const Batch& batch, std::uint64_t step) const {
  if (host_.cancelled()) throw Error("training was cancelled");
  const double nats = model.loss(batch).item<double>();
  if (!std::isfinite(nats))
    throw Error(
        fmt::format("training diverged: the loss of step {} is {}; nothing is sent. Lower learning_rate (now {})",
                    step + 1, nats, params_.learning_rate));
  return nats / static_cast<double>(batch.counted);
}

void FedKSeed::move(const std::vector<at::Tensor>& live, std::uint32_t seed, double by) const {
  const seeds::Term term{seed, static_cast<float>(by)};
  for_parts(live, [&](const seeds::Place& place, std::span<float> part) {
    seeds::add(with_, {&term, 1}, place, part);
  });
}

TrainResult FedKSeed::train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) {
  const at::NoGradGuard no_grad;
  const auto live = live_tensors(adapter);
  check_round(context.exchange, live.size(), params_.seeds);
  scalars_.clear();
  TrainResult result;
  double nats = 0, first = 0, last = 0;
  for (std::uint64_t step = 0; step < steps(0); ++step) {
    const auto batch = data.next(params_.batch);
    if (!batch) throw Error("the data source ended; it must go on with another order while it is shuffled");
    if (batch->counted == 0) throw Error(fmt::format("no label is counted in step {}", step + 1));
    const auto seed = candidate(context.seed, step, params_.seeds);
    move(live, seed, params_.epsilon);
    const double ahead = loss(model, *batch, step);
    move(live, seed, -2 * params_.epsilon);
    const double behind = loss(model, *batch, step);
    const double scalar = (ahead - behind) / (2 * params_.epsilon);
    move(live, seed, params_.epsilon - params_.learning_rate * scalar);
    scalars_[seed] += scalar;
    last = 0.5 * (ahead + behind);
    if (step == 0) first = last;
    nats += last * static_cast<double>(batch->counted);
    result.tokens += static_cast<std::uint64_t>(batch->counted);
    result.examples += static_cast<std::uint64_t>(batch->documents);
    ++result.steps;
    host_.progress(result.steps, steps(0));
  }
  result.metrics = {{"loss", nats / static_cast<double>(result.tokens)}, {"loss_first", first}, {"loss_last", last}};
  return result;
}

std::vector<at::Tensor> FedKSeed::outgoing(std::string_view channel) {
  return channel == seeds::kUpChannel ? seeds::encode(scalars_) : std::vector<at::Tensor>{};
}

double FedKSeed::rebuild_seconds(const Layout& trainable) const {
  double elements = 0;
  for (const auto& tensor : trainable.tensors) elements += static_cast<double>(tensor.elements());
  return elements * static_cast<double>(params_.seeds) * seeds::seconds_per_element(with_);
}

std::vector<std::string> FedKSeed::remarks(const Layout& trainable) const {
  std::int64_t parameters = 0;
  for (const auto& tensor : trainable.tensors) parameters += tensor.elements();
  return {fmt::format("rebuilds its weights in about {:.2g} s on one core like this one: {} seeds x {} parameters",
                      rebuild_seconds(trainable), params_.seeds, parameters)};
}

}  // namespace hansa::fedkseed
