// The parameters of low-rank pairs as parameters of a component, declared once for lora, dora and ffa_lora. Called from
// HANSA_PLUGIN. A wrong declaration throws, as in plugin.hpp.
#pragma once
#include <hansa/plugin.hpp>

#include "adapters/lora.hpp"

namespace hansa::adapters {

template <class T, class Interface>
ComponentBuilder<T, LoraParams, Interface>& declare_pairs(ComponentBuilder<T, LoraParams, Interface>& component) {
  return component
      .param(&LoraParams::targets, "targets", "Ends of module names, such as q_proj or attn.c_proj; or \"all-linear\".",
             list_of(), at_least(1))
      .param(&LoraParams::blocks, "blocks", "Numbers of the blocks that get pairs, -1 is the last; none: all.",
             list_of())
      .param(&LoraParams::r, "r", "Rank of each pair.", at_least(1))
      .param(&LoraParams::alpha, "alpha", "Numerator of the scale.", more_than(0))
      .param(&LoraParams::dropout, "dropout", "Chance that an input of a pair is dropped in training.", at_least(0),
             less_than(1))
      .param(&LoraParams::rslora, "rslora", "Divide alpha by the root of r instead of r.")
      .param(
          &LoraParams::patterns, "patterns",
          "Other ranks and alphas of the modules whose name ends in target; the first that fits counts. A node's own "
          "rank goes before them.",
          list_of(table(Schema<OwnRank>()
                            .param(&OwnRank::target, "target", "End of module names.", required())
                            .param(&OwnRank::r, "r", "Their rank.", at_least(1))
                            .param(&OwnRank::alpha, "alpha", "Their numerator of the scale.", more_than(0)))))
      .param(&LoraParams::modules_to_save, "modules_to_save",
             "Ends of names of modules that are trained whole beside the pairs, such as a new classification head.",
             list_of());
}

}  // namespace hansa::adapters
