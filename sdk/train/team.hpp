// What a turn's loop does differently where several processes share a silo's batches (hansa/peers.hpp): each goes through the
// same batches in the same order and works on its own rows of them; sums are made over all. With one process nothing here does
// anything. Training thread only. Throws what Peers throws, and Error where the processes see different text.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <hansa/trainer.hpp>

namespace hansa::train {

// The part of `rank` among `size`: rows one after the other, pairs unparted, the first processes having one more where it does
// not divide evenly. Perhaps no row at all. `counted` is the part's; `documents` stays the whole's.
Batch part_of(const Batch&, std::size_t rank, std::size_t size);

class Team {
 public:
  // Parameters: those that train; their gradients are what sum_gradients() makes sums of.
  Team(Peers* peers, std::vector<at::Tensor> parameters);

  Batch part_of(const Batch& batch) const;
  bool mine(std::size_t index) const { return !peers_ || index % peers_->size() == peers_->rank(); }
  std::uint64_t dropout_seed(std::uint64_t seed) const;  // one's own: rows that two processes have do not share masks

  // Runs `work`; where it throws in one process, all throw. Inside it nothing is shared.
  void together(const std::function<void()>& work) const;
  // Sums over all processes.
  void sum(std::span<double> values) const;
  // The same for numbers with names, of which a process that never had a row may know none.
  void sum(Metrics& values) const;
  // After all backward passes of a step: each gradient becomes the sum over all, in one buffer; a parameter that no process
  // used has none. Sums `beside` along with them. Throws where the batches since the start were not the same everywhere.
  void sum_gradients(std::span<double> beside);
  void saw(const Batch& whole);  // before it was parted

 private:
  void require_same(double digests, double squares) const;
  Peers* peers_;
  std::vector<at::Tensor> parameters_;
  at::Tensor gradients_;  // the buffer, as long as all parameters
  std::uint64_t seen_ = 0;
};

}  // namespace hansa::train
