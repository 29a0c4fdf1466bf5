// Trainer "my_plugin": some steps of plain gradient descent. Replace the turn; keep to the rules of hansa/trainer.hpp: it moves
// the Shared and Personal parameters only, and what it does is a function of the context's seed.
#pragma once
#include <hansa/trainer.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  double learning_rate = 0.01;
  std::int64_t steps = 10;
  std::int64_t batch = 8;
};

class MyPlugin final : public hansa::Stateless<hansa::Trainer> {
 public:
  MyPlugin(Params params, hansa::Host& host) : params_(params), host_(host) {}
  std::uint64_t steps(std::uint64_t) const override { return static_cast<std::uint64_t>(params_.steps); }
  hansa::TrainResult train(hansa::Model&, hansa::Adapter&, hansa::DataSource&, const hansa::TrainContext&) override;

 private:
  Params params_;
  hansa::Host& host_;
};

}  // namespace example
