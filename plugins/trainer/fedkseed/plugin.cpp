// Both halves of FedKSeed: neither is of use without the other.
#include <hansa/plugin.hpp>

#include "aggregator.hpp"
#include "trainer.hpp"

HANSA_PLUGIN(org_hansa_fedkseed, "0.1.0") {
  using namespace hansa;
  using fedkseed::Params;
  using fedkseed::PoolParams;
  constexpr auto kMost = static_cast<double>(seeds::kMostSeeds);
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<fedkseed::FedKSeed, Params>("fedkseed",
                                       "Tuning of all weights by forward passes alone; seeds and scalars on the wire.")
      .doc(
          "FedKSeed (arXiv 2312.06353), for the aggregator `fedkseed` with the same `seeds`, and the adapter `full`. "
          "Each "
          "step takes one of the candidate seeds, measures the loss at the weights plus and minus epsilon times the "
          "seed's "
          "direction, and moves against the slope. Weights are rebuilt from the base and one half-precision "
          "accumulator per "
          "seed, with the same bits on every machine; the learning rate is constant, and the weight decay applies "
          "once, to "
          "the base. A rebuild, one a round, makes `seeds` random numbers per parameter.")
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Params::seeds, "seeds", "Candidate seeds; the aggregator's as well.", range(1, kMost))
      .param(&Params::steps, "steps", "Local steps of a round, two forward passes each.", at_least(1))
      .param(&Params::batch, "batch", "Rows of one forward pass.", at_least(1), "rows")
      .param(&Params::learning_rate, "learning_rate", "Constant: every rebuild uses it.", at_least(0))
      .param(&Params::epsilon, "epsilon", "Distance at which the loss is measured, times a normal per weight.",
             more_than(0))
      .param(&Params::weight_decay, "weight_decay", "Shrinks the base by learning_rate times this, once.", at_least(0))
      .param(&Params::family, "family", "Another number gives other directions for all seeds; the same on all nodes.",
             range(0, 4294967295.0))
      .param(&Params::instructions, "instructions",
             "For tests: which build of the generator runs. All give the same bits.",
             choices({"auto", "scalar", "avx2", "avx512"}));
  plugin.add<fedkseed::Pool, PoolParams>("fedkseed", "One half-precision accumulator per candidate seed; no tensors.")
      .doc(
          "FedKSeed (arXiv 2312.06353), for the trainer `fedkseed` with the same `seeds`. The weighted mean of the "
          "nodes' "
          "scalars is appended to the log `accumulators`, 2 bytes per seed and round. Nothing here is noised or "
          "hidden: a "
          "seed that one node alone used carries that node's scalar to everybody.")
      .traits(HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_RELEASES_INDIVIDUALS |
              HANSA_TRAIT_KEEPS_HISTORY)
      .param(&PoolParams::seeds, "seeds", "Candidate seeds; the trainer's as well.", range(1, kMost));
}
