// The fold: accepted uploads and version e become version e+1, group by group, clients in ascending node order, straight
// from the spool files. Memory is one group times what the aggregator's workspace states, whatever the model's size and the
// number of clients. Called by the coordinator on its round thread; plugin calls go through the guard. Nothing but its
// output files changes: a fold that fails or is killed is simply repeated.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <hansa/aggregator.hpp>
#include <hansa/privacy.hpp>
#include <hansa/server_optimizer.hpp>

#include "fold/packet_file.hpp"
#include "plugin_host/instance.hpp"
#include "tensor/codec_chain.hpp"

namespace hansa::fold {

struct FoldClient {
  Contribution who;
  double factor = 1;            // re-clip: the host multiplies every tensor of this client by it
  std::filesystem::path spool;  // the upload, a packet as received
};

struct FoldStages {  // borrowed; what the pipeline names
  const Instance<Aggregator>& aggregator;
  const Instance<ServerOptimizer>& optimizer;
  const Instance<Privacy>& privacy;  // null: no mechanism
  const CodecChain& codecs;
  SecureRng& noise;
};

struct FoldFiles {
  std::filesystem::path base, base_state;  // version e and its optimiser state (absent: all zero)
  std::filesystem::path next, next_state;  // version e+1; next_state is written only where the optimiser keeps state
  Durability durability = Durability::Process;
  std::function<void()> before_release;  // after the last plugin call, before the version gets its final name
};

struct FoldPlan {
  RoundPlan round;
  Layout trainable;
  Exchange exchange;
  std::uint64_t common_seed = 0;  // what decode sees
  bool additive = true;           // the aggregator's trait
  double denominator =
      1;  // an Additive sum is divided by it: the sum of weights, or the planned cohort under central DP
  Sensitivity sensitivity;
};

struct FoldOutcome {
  PacketFile version;
  std::optional<PacketFile> state;
  Metrics metrics;  // the aggregator's, and "update_norm"
};

// progress(done, total) in groups. Clients must be in ascending node order. Throws Error.
FoldOutcome fold(const FoldPlan&, std::span<const FoldClient>, FoldStages, const FoldFiles&,
                 const std::function<void(std::size_t, std::size_t)>& progress = {});

// The packet of a version: one channel "adapter", every tensor raw; meta "epoch", and "made_by": which attempt of which round.
PacketContents version_contents(const Layout& trainable, Epoch epoch, std::string made_by);
std::string made_by(const RoundPlan&);

}  // namespace hansa::fold
