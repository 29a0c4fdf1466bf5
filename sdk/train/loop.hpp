// Training by gradient descent, some steps a round: what trainers that differ only in what they do to the gradients share.
// Training thread only. Owns nothing between calls. run() throws Error when the loss or the gradient is not finite, when
// the data source ends, and when the host cancels: the node then sends nothing.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <hansa/trainer.hpp>

#include "train/optimizer.hpp"
#include "train/schedule.hpp"

namespace hansa::train {

enum class Span : std::uint8_t { Run, Round };
enum class Rule : std::uint8_t { AdamW, Sgd };

struct Params {  // declare() makes them parameters of a component
  std::int64_t steps = 20;
  std::optional<double> epochs;
  std::int64_t batch = 8, accumulation = 1;
  double learning_rate = 1e-3;
  Shape schedule = Shape::Constant;
  Span schedule_over = Span::Run;
  std::int64_t warmup_steps = 0;
  double final_fraction = 0;
  Rule optimizer = Rule::AdamW;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0, momentum = 0;
  double max_grad_norm = 1;
};

// Optimiser steps of one round over a silo of so many documents.
std::uint64_t steps_of(const Params&, std::uint64_t examples);

// The adapter's parameters whose role is Shared or Personal, in the layout's order. The others lose their gradient for this
// round. Throws when none is left.
struct Trained {
  std::vector<Index> indices;  // in the trainable layout
  std::vector<at::Tensor> parameters;
};
Trained trained(Adapter&, const Exchange&);

// Called once in each step, when all its micro-batches are through: the parameters' gradients are then those of the mean loss
// per counted token, neither clipped nor decayed. It may change them in place; clipping and the optimiser come after it. A
// parameter that the model did not use has no gradient.
using Hook = std::function<void(const Trained&)>;

TrainResult run(const Params&, Host&, Model&, Adapter&, DataSource&, const TrainContext&, const Hook& = {});

}  // namespace hansa::train
