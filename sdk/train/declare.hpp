// The parameters of the loop as parameters of a trainer, declared once for all trainers that run it. Called from
// HANSA_PLUGIN; P is train::Params or derives from it. A wrong declaration throws, as in plugin.hpp.
#pragma once
#include <hansa/plugin.hpp>

#include "train/loop.hpp"

namespace hansa::train {

namespace detail {
template <class P>
struct In {  // the same member, seen as one of the derived struct
  template <class M>
  constexpr M P::*operator()(M Params::*member) const {
    return member;
  }
};
}  // namespace detail

template <class T, class P, class Interface>
ComponentBuilder<T, P, Interface>& declare(ComponentBuilder<T, P, Interface>& component) {
  constexpr detail::In<P> in;
  return component.param(in(&Params::steps), "steps", "Optimiser steps of a round.", at_least(1))
      .param(in(&Params::epochs), "epochs", "Passes over the silo in a round, instead of steps.", more_than(0))
      .param(in(&Params::batch), "batch", "Rows of one forward pass.", at_least(1), "rows")
      .param(in(&Params::accumulation), "accumulation", "Forward passes of one optimiser step.", at_least(1))
      .param(in(&Params::learning_rate), "learning_rate", "Peak learning rate.", at_least(0))
      .param(in(&Params::schedule), "schedule", "Shape of the learning rate.",
             choices({"constant", "cosine", "linear"}))
      .param(in(&Params::schedule_over), "schedule_over", "What the schedule spans.", choices({"run", "round"}))
      .param(in(&Params::warmup_steps), "warmup_steps", "Linear rise to the peak, at the schedule's start.",
             at_least(0), "steps")
      .param(in(&Params::final_fraction), "final_fraction", "Share of the peak that is left at the schedule's end.",
             range(0, 1))
      .param(in(&Params::optimizer), "optimizer", "The rule of a step.", choices({"adamw", "sgd"}))
      .param(in(&Params::beta1), "beta1", "AdamW: memory of the mean.", at_least(0), less_than(1))
      .param(in(&Params::beta2), "beta2", "AdamW: memory of the square.", at_least(0), less_than(1))
      .param(in(&Params::epsilon), "epsilon", "AdamW: added to the root of the square.", more_than(0))
      .param(in(&Params::weight_decay), "weight_decay", "AdamW: decoupled; SGD: added to the gradient.", at_least(0))
      .param(in(&Params::momentum), "momentum", "SGD: memory of the velocity.", at_least(0), less_than(1))
      .param(in(&Params::max_grad_norm), "max_grad_norm", "Bound of the gradient's L2 norm; 0: none.", at_least(0))
      .param(in(&Params::diverged_above), "diverged_above",
             "A loss so many times that of the first step, or of 1 where that was lower, is given up; 0: only NaN and "
             "infinity.",
             at_least(0))
      .param(in(&Params::held_out), "held_out",
             "Share of the silo's examples that is not trained on and decides when to stop; 0: none.", at_least(0),
             less_than(1), "fraction")
      .param(in(&Params::held_out_most), "held_out_most", "Held-out examples that a check goes through, at most.",
             at_least(1))
      .param(in(&Params::check_every), "check_every", "Steps between two checks of the held-out loss.", at_least(1),
             "steps")
      .param(in(&Params::patience), "patience",
             "Checks without a better held-out loss after which the round stops; the best state is what stays.",
             at_least(1), "checks")
      .check([](const P& p, Problems& problems) {
        if (p.epochs && p.schedule != Shape::Constant)
          problems.add("epochs", "a schedule needs to know the number of steps, and epochs do not fix it",
                       "give steps instead, or schedule = \"constant\"");
      });
}

}  // namespace hansa::train
