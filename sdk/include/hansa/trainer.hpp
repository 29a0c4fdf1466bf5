// Kind "trainer": what a client does in its turn. Node side, training thread.
#pragma once
#include <hansa/adapter.hpp>
#include <hansa/data_source.hpp>

namespace hansa {

struct TrainContext {
  RoundPlan plan;  // cohort is empty on a node
  Exchange exchange;
  NodeId node = 0;
  Round rounds = 0;        // of the whole run: schedules may need it
  std::uint64_t seed = 0;  // from (run seed, node, round): order of data, dropout
};

class Trainer : public Component {
 public:
  using InterfaceType = Trainer;
  static constexpr std::string_view kKind = "trainer/1";
  virtual std::uint64_t steps(
      std::uint64_t examples) const = 0;  // optimiser steps of one round; for plans and progress
  // Moves the adapter's parameters, whose injections the host has put into the model. The data source is open and already
  // shuffled with context.seed. Polls host.cancelled().
  virtual TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) = 0;
};

}  // namespace hansa
