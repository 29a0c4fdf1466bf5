// What one round trains and moves for one node, complete: the aggregator's view, roles and channels, the trainer's channels,
// and the "adapter" channel in front. Made by the coordinator for a round, by `hansa check` for its estimate. Pure; throws
// Error naming the component whose declaration makes no sense.
#pragma once
#include <set>

#include <hansa/types.hpp>

#include "pipeline/stages.hpp"

namespace hansa::pipeline {

// `trainable` is the layout at the node's rank.
Exchange exchange_for(const Stages&, const Layout& trainable, const RoundPlan&, const NodeFacts&);

// Views of a run with the layout of each: "" first, at the pipeline's own rank, then those of the nodes' ranks, by name.
struct View {
  std::string name;
  double rank = 0;         // one that leads to this view
  std::set<double> ranks;  // all of them
  Layout trainable;
};
std::vector<View> views_of(const Stages&, const LayoutsByRank&);

}  // namespace hansa::pipeline
