// Trainer `fedkseed` (arXiv 2312.06353): full-parameter tuning without a backward pass and without tensors on the wire. Each
// local step measures the loss on both sides of the weights along a direction made from one of K candidate seeds, and moves
// along it; upwards go the seeds used and the sum of their scalars, downwards one accumulator per candidate seed. From the
// accumulators every node and the coordinator rebuild the same weights, bit for bit: base - rate * sum of A_k z_k.
// Training thread only. Throws Error when the loss is not finite, when a number leaves half precision, when the host cancels,
// and when the round is not one of the aggregator `fedkseed`.
#pragma once
#include <string>
#include <vector>

#include <hansa/trainer.hpp>
#include <seeds/directions.hpp>
#include <seeds/wire.hpp>

namespace hansa::fedkseed {

enum class Choice : std::uint8_t { Auto, Scalar, Avx2, Avx512 };

struct Params {
  std::int64_t seeds = 4096;
  std::int64_t steps = 200, batch = 8;
  double learning_rate = 1e-5, epsilon = 5e-4, weight_decay = 0;
  std::int64_t family = 0;
  Choice instructions = Choice::Auto;
};

class FedKSeed final : public Stateless<Trainer> {  // what it knows comes again from the log
 public:
  FedKSeed(Params params, Host& host);
  std::uint64_t steps(std::uint64_t) const override { return static_cast<std::uint64_t>(params_.steps); }
  std::vector<Channel> up(const Layout&) const override { return {seeds::up_channel()}; }
  void receive(Model&, Adapter&, const Download&) override;  // adds up; the weights follow in derive()
  void derive(Model&, Adapter&) override;                    // from the base, which stands in the adapter
  // Leaves its own weights in the adapter; what counts travels as scalars and comes back in the sum. Without channels a
  // silo trains alone, and what it leaves is the result.
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override;
  std::vector<at::Tensor> outgoing(std::string_view channel) override;
  // Seconds of one derive() on one core, all accumulators in use, measured on this machine.
  double rebuild_seconds(const Layout& trainable) const;
  std::vector<std::string> remarks(const Layout& trainable) const override;

 private:
  double loss(Model&, const Batch&, std::uint64_t step) const;
  void move(const std::vector<at::Tensor>& live, std::uint32_t seed, double by) const;  // w += by * z
  // body(place, elements) for parts of all tensors, by the host's threads.
  template <class Body>
  void for_parts(const std::vector<at::Tensor>& tensors, const Body& body) const;

  Params params_;
  Host& host_;
  seeds::Instructions with_;
  at::Tensor accumulators_;  // undefined before the first entry
  seeds::Scalars scalars_;   // of the last training
};

}  // namespace hansa::fedkseed
