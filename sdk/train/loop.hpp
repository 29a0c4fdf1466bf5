// Training by gradient descent, some steps a round: what trainers that differ only in what they minimise or in what they do to
// the gradients share. Training thread only. Owns nothing between calls. run() throws Error when the loss explodes or is not
// finite, when the data source ends or gives what the objective has no use for, and when the host cancels: the node then
// sends nothing.
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
  double diverged_above = 4;
  double held_out = 0;  // 0: no early stop
  std::int64_t held_out_most = 256, check_every = 10, patience = 3;
};

// Optimiser steps of one round over a silo of so many documents.
std::uint64_t steps_of(const Params&, std::uint64_t examples);

// The adapter's parameters whose role is Shared or Personal, in the layout's order. The others lose their gradient for this
// round. Throws when none is left.
struct Trained {
  std::vector<Index> indices;  // in the trainable layout
  std::vector<at::Tensor> parameters;
  std::vector<double> rates;  // factors of the learning rate that the adapter asks for
};
Trained trained(Adapter&, const Exchange&);

// The model's dropout for the length of a training, however it ends. Each time that it goes on again the masks are others.
class Dropout {
 public:
  Dropout(Model& model, std::uint64_t seed) : model_(model), seed_(seed) { on(); }
  ~Dropout() { model_.disable_dropout(); }
  Dropout(const Dropout&) = delete;
  Dropout& operator=(const Dropout&) = delete;

  class Off {  // while it lives
   public:
    explicit Off(Dropout& dropout) : dropout_(dropout), was_on_(dropout.on_) { dropout_.off(); }
    ~Off() {
      if (was_on_) dropout_.on();
    }
    Off(const Off&) = delete;
    Off& operator=(const Off&) = delete;

   private:
    Dropout& dropout_;
    bool was_on_;
  };

 private:
  void on();
  void off();
  Model& model_;
  std::uint64_t seed_, times_ = 0;
  bool on_ = false;
};

// What is minimised. Called for each batch, with dropout as it is to be; also without gradients, on held-out batches.
struct Found {
  at::Tensor sum;           // fp32 scalar, with graph
  std::uint64_t units = 0;  // that it is a sum over: counted labels, pairs. A step divides by those of all its batches
  Metrics sums;             // further sums over the units; their means are reported under these names
};
using Objective = std::function<Found(Model&, const Batch&, Dropout&)>;
// The model's own loss, over counted labels. Throws on pairs of a better and a worse answer: it would learn both.
Found model_loss(Model&, const Batch&, Dropout&);
void require_single_texts(const Batch&);  // throws on pairs

// Called once in each step, when all its micro-batches are through: the parameters' gradients are then those of the mean loss
// per unit, neither clipped nor decayed. It may change them in place; clipping and the optimiser come after it. A parameter
// that the model did not use has no gradient.
using Hook = std::function<void(const Trained&)>;

TrainResult run(const Params&, Host&, Model&, Adapter&, DataSource&, const TrainContext&, const Hook& = {},
                const Objective& = model_loss);

}  // namespace hansa::train
