// Trainer `sft`: supervised next-token training by gradient descent, some steps a round; all of it is the SDK's loop
// (train/loop.hpp). Training thread only; fails as that does.
#pragma once
#include <train/loop.hpp>

namespace hansa::sft {

using train::Params;
using train::Rule;
using train::Schedule;
using train::Shape;
using train::Span;

class Sft final : public Stateless<Trainer> {
 public:
  Sft(Params params, Host& host) : params_(params), host_(host) {}
  std::uint64_t steps(std::uint64_t examples) const override { return train::steps_of(params_, examples); }
  bool shares_batches() const override { return true; }
  TrainResult train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) override {
    return train::run(params_, host_, model, adapter, data, context);
  }

 private:
  Params params_;
  Host& host_;
};

}  // namespace hansa::sft
