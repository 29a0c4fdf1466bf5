// Trainer `sft`: supervised next-token training by gradient descent, some steps a round. Training thread only. Throws
// Error when the loss is not finite, when the data source ends, and when the host cancels: the node then sends nothing.
#pragma once
#include <optional>

#include <hansa/trainer.hpp>

#include "optimizer.hpp"
#include "schedule.hpp"

namespace hansa::sft {

enum class Span : std::uint8_t { Run, Round };
enum class Rule : std::uint8_t { AdamW, Sgd };

struct Params {
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

class Sft final : public Stateless<Trainer> {
 public:
  Sft(Params params, Host& host) : params_(params), host_(host) {}
  std::uint64_t steps(std::uint64_t examples) const override;
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override;

 private:
  struct Step {  // sums over its micro-batches
    double nats = 0;
    std::uint64_t tokens = 0, documents = 0;
  };
  Step accumulate(Model&, DataSource&, std::uint64_t step) const;
  Schedule schedule(const TrainContext&, std::uint64_t steps) const;

  Params params_;
  Host& host_;
};

}  // namespace hansa::sft
