// Evaluators with one bug each.
#include <stdexcept>

#include <ATen/core/grad_mode.h>
#include <hansa/evaluator.hpp>
#include <hansa/plugin.hpp>

namespace planted {
using namespace hansa;

class Loss : public Stateless<Evaluator> {
 public:
  explicit Loss(Host& host) : host_(host) {}
  Metrics evaluate(Model& model, DataSource& data) override {
    const at::NoGradGuard no_grad;
    double nats = start_, tokens = 0;
    begin(model);
    while (const auto batch = data.next(4)) {
      if (listens() && host_.cancelled()) throw std::runtime_error("cancelled");
      nats += model.loss(*batch).item<double>();
      tokens += static_cast<double>(counted(*batch));
    }
    return sums(nats, tokens);
  }

 protected:
  virtual void begin(Model&) {}
  virtual bool listens() const { return true; }
  virtual std::int64_t counted(const Batch& batch) const { return batch.counted; }
  virtual Metrics sums(double nats, double tokens) { return {{"nats", nats}, {"tokens", tokens}}; }
  Host& host_;
  double start_ = 0;
};

class RunningTotal final : public Loss {
  using Loss::Loss;
  Metrics sums(double nats, double tokens) override {
    start_ = nats;
    return {{"nats", nats}, {"tokens", tokens}};
  }
};
class TakesTheAdapterOut final : public Loss {
  using Loss::Loss;
  void begin(Model& model) override { model.inject({}); }
};
class Averages final : public Loss {
  using Loss::Loss;
  Metrics sums(double nats, double tokens) override { return {{"loss", nats / tokens}}; }
};
class CountsPadding final : public Loss {
  using Loss::Loss;
  std::int64_t counted(const Batch& batch) const override { return batch.tokens.numel(); }
};
class DoesNotListen final : public Loss {
  using Loss::Loss;
  bool listens() const override { return false; }
};
class WritesToTheBase final : public Loss {
  using Loss::Loss;
  void begin(Model& model) override {
    const auto modules = {"transformer.ln_f", "model.norm"};
    for (const auto* name : modules) {
      try {
        model.base(name).first.add_(1);
      } catch (const std::exception&) {  // of another model
      }
    }
  }
};
class LeavesDropoutOn final : public Loss {
  using Loss::Loss;
  void begin(Model& model) override { model.enable_dropout(1); }
};

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_evaluators, "0.1.0") {
  using namespace planted;
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  plugin.add<Loss>("right_loss", "Sums of nats and tokens.");
  plugin.add<RunningTotal>("running_total", "Goes on from the last silo's sum.");
  plugin.add<TakesTheAdapterOut>("evaluates_the_base", "Takes the adapter out and leaves it out.");
  plugin.add<Averages>("averages", "Gives a quotient.");
  plugin.add<CountsPadding>("counts_all_tokens", "Padding counts as tokens.");
  plugin.add<DoesNotListen>("evaluates_on", "Does not end when the host asks it to.");
  plugin.add<WritesToTheBase>("writes_to_the_base", "Writes to a tensor of the base.");
  plugin.add<LeavesDropoutOn>("evaluates_with_dropout", "Switches dropout on and not off.");
}
