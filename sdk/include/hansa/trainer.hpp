// Kind "trainer": what a client does in its turn. Node side, training thread.
#pragma once
#include <hansa/adapter.hpp>
#include <hansa/data_source.hpp>
#include <hansa/peers.hpp>

namespace hansa {

struct TrainContext {
  RoundPlan plan;  // cohort is empty on a node
  Exchange exchange;
  NodeId node = 0;
  Round rounds = 0;        // of the whole run: schedules may need it
  std::uint64_t seed = 0;  // from (run seed, node, round): order of data, dropout
  Peers* peers =
      nullptr;  // with whom this silo's batches are shared out; null: nobody. Only for trainers that shares_batches()
};

class Trainer : public Component {
 public:
  using InterfaceType = Trainer;
  static constexpr std::string_view kKind = "trainer/1";
  virtual std::uint64_t steps(
      std::uint64_t examples) const = 0;  // optimiser steps of one round; for plans and progress
  // Sentences for `hansa check --explain` on what a node will need beside the model, such as the time of a rebuild. Pure.
  virtual std::vector<std::string> remarks(const Layout& trainable) const { return {}; }
  // Channels of its own beyond "adapter", both pure; `standing` is what a version holds of the adapter. A Mean channel stands in both lists under one name and layout, and is
  // zero at the start.
  virtual std::vector<Channel> up(const Layout& standing) const { return {}; }
  virtual std::vector<Channel> down(const Layout& standing) const { return {}; }
  // Before train(): a channel that is for the trainer, from here or from the aggregator. The default knows none.
  virtual void receive(Model&, Adapter&, const Download& download) {
    throw std::runtime_error("this trainer has no use for channel '" + download.channel + "'; choose one that does");
  }
  // After a version was loaded and everything received, before train() and before an evaluation: sets the parameters whose
  // role is Derived, which stand as the adapter created them.
  virtual void derive(Model&, Adapter&) {}
  // Moves those of the adapter's parameters whose role is Shared or Personal (context.exchange.roles); the host has put the
  // adapter's injections into the model. The data source is open and already shuffled with context.seed. Polls
  // host.cancelled().
  virtual TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) = 0;
  // After train(): the tensors of an own up channel, in its order; Sum and Mean: fp32 changes.
  virtual std::vector<at::Tensor> outgoing(std::string_view channel) { return {}; }
  // What the coordinator will decode of a Mean channel's tensors, after clip, noise and codecs: state that must agree with
  // the coordinator's moves by this, not by what was meant.
  virtual void sent(std::string_view channel, std::span<const at::Tensor> decoded) {}
  // Whether train() heeds context.peers: each of several processes works on its part of every batch, and all end with the
  // parameters that one process would end with. The host refuses to run another trainer in several processes.
  virtual bool shares_batches() const { return false; }
};

}  // namespace hansa
