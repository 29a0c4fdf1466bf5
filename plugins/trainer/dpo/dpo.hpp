// Trainer `dpo`: learns which of two answers is the better one (arXiv 2305.18290). The SDK's loop over pairs. There is no second
// model: the reference is the same model without injections, or with the parameters that the round began with. Training
// thread only; fails as the loop does, and on batches that are not pairs.
#pragma once
#include <train/loop.hpp>

namespace hansa::dpo {

enum class Loss : std::uint8_t { Sigmoid, Ipo };
enum class Reference : std::uint8_t { Base, RoundStart };

struct Params : train::Params {
  double beta = 0.1, label_smoothing = 0;
  Loss loss = Loss::Sigmoid;
  Reference reference = Reference::Base;
};

// Log-probabilities of the better and the worse answers, [pairs] each, fp32.
struct Answers {
  at::Tensor better, worse;
};
struct PairLosses {
  at::Tensor losses;   // [pairs], with the graph of `policy`
  at::Tensor rewards;  // [pairs], of the better less the worse
};
PairLosses pair_losses(const Params&, const Answers& policy, const Answers& reference);

class Dpo final : public Stateless<Trainer> {
 public:
  Dpo(Params params, Host& host) : params_(params), host_(host) {}
  std::uint64_t steps(std::uint64_t examples) const override;
  bool shares_batches() const override { return true; }
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override;

 private:
  Params params_;
  Host& host_;
};

}  // namespace hansa::dpo
