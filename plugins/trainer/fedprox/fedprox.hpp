// Trainer `fedprox`: the SDK's loop with a pull towards the weights that the round began with (arXiv 1812.06127). Training
// thread only; fails as the loop does.
#pragma once
#include <train/loop.hpp>

namespace hansa::fedprox {

struct Params : train::Params {
  double mu = 0.01;
};

class FedProx final : public Stateless<Trainer> {
 public:
  FedProx(Params params, Host& host) : params_(params), host_(host) {}
  std::uint64_t steps(std::uint64_t examples) const override { return train::steps_of(params_, examples); }
  bool shares_batches() const override { return true; }
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override;

 private:
  Params params_;
  Host& host_;
};

}  // namespace hansa::fedprox
