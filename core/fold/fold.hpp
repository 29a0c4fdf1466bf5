// The fold: accepted uploads and version e become version e+1, group by group, clients in ascending node order, straight
// from the spool files. Memory is one group times what the aggregator's workspace states, whatever the model's size and the
// number of clients. Called by the coordinator on its round thread; plugin calls go through the guard. Nothing but its
// output files changes: a fold that fails or is killed is simply repeated. What a plugin made that cannot be released is its
// PluginFailure, whether it threw or not.
//
// What becomes of a channel: "adapter" goes through the rule, noise, weights and the server optimiser; a Mean channel's sum
// is noised, divided by the population and added; a Collect channel goes to the rule as it is. What stands without moving is
// copied. A version file holds the Latest channels of its view; what the rule appended to Log channels is a file of its own.
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

#include "base/file.hpp"
#include "fold/packet_file.hpp"
#include "plugin_host/instance.hpp"
#include "tensor/codec_chain.hpp"

namespace hansa::fold {

struct FoldClient {
  Contribution who;             // its view is one of the plan's
  double factor = 1;            // re-clip: the host multiplies every changed tensor of this client by it
  std::filesystem::path spool;  // the upload, a packet as received
};

struct FoldStages {  // borrowed; what the pipeline names
  const Instance<Aggregator>& aggregator;
  const Instance<ServerOptimizer>& optimizer;
  const Instance<Privacy>& privacy;  // null: no mechanism
  const CodecChain& codecs;          // upwards
  const CodecChain& downlink;        // how `sent` was encoded
  SecureRng& noise;
};

struct FoldView {    // nodes of one view share everything here
  std::string name;  // "" first
  Layout trainable;
  Exchange exchange;                 // of this round
  std::filesystem::path base, next;  // version e and version e+1
  std::filesystem::path sent;        // what nodes were sent of version e; empty: the version itself
};

struct FoldFiles {
  std::filesystem::path base_state;  // version e's optimiser state (absent: all zero)
  std::filesystem::path next_state;  // version e+1's; written only where the optimiser keeps state
  std::filesystem::path next_log;  // what was appended to Log channels on the way to e+1; written only if something was
  Durability durability = Durability::Process;
  std::function<void()> before_release;  // after the last plugin call, before the version gets its final name
};

struct FoldPlan {
  RoundPlan round;
  std::vector<FoldView> views;
  std::uint64_t common_seed = 0;  // what decode of an upload sees
  std::uint64_t down_seed = 0;    // what decode of `sent` sees
  bool additive = true;           // the aggregator's trait
  double denominator =
      1;  // an Additive sum is divided by it: the sum of weights, or the planned cohort under central DP
  Sensitivity sensitivity;
  bool names_nodes = true;  // in messages; not under central DP, where who took part is private
};

struct FoldOutcome {
  PacketFile version;  // of the view ""
  std::optional<PacketFile> state;
  Metrics metrics;  // the aggregator's, and "update_norm"
};

// progress(done, total) in groups. Clients must be in ascending node order. Throws Error.
FoldOutcome fold(const FoldPlan&, std::span<const FoldClient>, FoldStages, const FoldFiles&,
                 const std::function<void(std::size_t, std::size_t)>& progress = {});

// The packet of a version: the Latest channels of `down`, every tensor raw; meta "epoch", "made_by": which attempt of which
// round, and "moved": the "channel/tensor" that differ from the version before, one a line ("*": all of them).
PacketContents version_contents(const std::vector<Channel>& down, Epoch epoch, std::string made_by,
                                std::string moved = "*");
std::string made_by(const RoundPlan&);

}  // namespace hansa::fold
