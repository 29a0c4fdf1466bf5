// What a node must know about one piece of training work beside the model: the round's plan without its cohort, what is
// exchanged, the clip bound. Made by the coordinator, travels as canonical JSON in the wire's `exchange` field, read by the
// node. Values; any thread; parse throws Error naming what is wrong.
#pragma once
#include <limits>
#include <string>
#include <string_view>

#include <hansa/types.hpp>

namespace hansa::pipeline {

struct WorkOrder {
  RoundPlan plan;    // cohort stays with the coordinator: it is private
  Round rounds = 0;  // of the whole run
  Exchange exchange;
  double clip_bound = std::numeric_limits<double>::infinity();  // joint L2 over all Sum and Mean channels
};

std::string to_json(const WorkOrder&);
WorkOrder work_order_from_json(std::string_view json);

// Seeds that both sides derive from the run's: what decode sees, and what only this node's encoders see.
std::uint64_t common_seed(std::uint64_t run_seed, Round round);
std::uint64_t own_seed(std::uint64_t run_seed, Round round, NodeId node);
std::uint64_t down_seed(std::uint64_t run_seed);  // of versions on their way down
std::uint64_t training_seed(std::uint64_t run_seed, Round round, NodeId node);

}  // namespace hansa::pipeline
