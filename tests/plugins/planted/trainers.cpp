// Trainers with one bug each.
#include <chrono>
#include <stdexcept>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <hansa/plugin.hpp>
#include <hansa/trainer.hpp>

namespace planted {
using namespace hansa;

constexpr double kRate = 0.05;
constexpr const char* kChannel = "gradient";

struct Params {
  std::int64_t steps = 12;
};

// Gradient descent; in a channel of its own, the sum of the gradients' first elements.
class Descent : public Stateless<Trainer> {
 public:
  Descent(Params params, Host& host) : planned_(static_cast<std::uint64_t>(params.steps)), host_(host) {}
  std::uint64_t steps(std::uint64_t) const override { return planned_; }
  TrainResult train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) override {
    TrainResult result;
    double nats = 0;
    begin(model, context);
    for (std::uint64_t step = 0; step < planned_; ++step) {
      if (listens() && host_.cancelled()) throw std::runtime_error("cancelled");
      const auto batch = data.next(2);
      if (!batch) throw std::runtime_error("the data ended");
      const auto moved = trained(adapter, context.exchange);
      for (const auto& parameter : moved) parameter.mutable_grad() = at::Tensor();
      const auto loss = model.loss(*batch);
      loss.div(static_cast<double>(batch->counted)).backward();
      const at::NoGradGuard no_grad;
      for (const auto& parameter : moved)
        if (parameter.grad().defined()) parameter.detach().add_(change(parameter.grad()));
      nats += loss.item<double>();
      result.tokens += static_cast<std::uint64_t>(batch->counted);
      result.examples += static_cast<std::uint64_t>(batch->documents);
      ++result.steps;
    }
    for (Index i = 0; i < context.exchange.roles.size(); ++i) adapter.parameter(i).mutable_grad() = at::Tensor();
    result.metrics = {{"loss", mean(nats, result.tokens)}};
    return result;
  }

 protected:
  virtual std::vector<at::Tensor> trained(Adapter& adapter, const Exchange& exchange) const {
    std::vector<at::Tensor> all;
    for (Index i = 0; i < exchange.roles.size(); ++i)
      if (exchange.roles[i] == Role::Shared || exchange.roles[i] == Role::Personal) all.push_back(adapter.parameter(i));
    return all;
  }
  virtual at::Tensor change(const at::Tensor& gradient) { return gradient * -kRate; }
  virtual double mean(double nats, std::uint64_t tokens) const { return nats / static_cast<double>(tokens); }
  virtual bool listens() const { return true; }
  virtual void begin(Model&, const TrainContext&) {}
  std::uint64_t planned_;
  Host& host_;
};

class MovesFrozen final : public Descent {
  using Descent::Descent;
  std::vector<at::Tensor> trained(Adapter& adapter, const Exchange& exchange) const override {
    std::vector<at::Tensor> all;
    for (Index i = 0; i < exchange.roles.size(); ++i) all.push_back(adapter.parameter(i));
    return all;
  }
};
class DoesNotListen final : public Descent {
  using Descent::Descent;
  bool listens() const override { return false; }
};
class WallClock final : public Descent {
  using Descent::Descent;
  at::Tensor change(const at::Tensor& gradient) override {
    const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    return gradient * (-kRate * (1 + static_cast<double>(now % 1000) * 1e-3));
  }
};
class GlobalNoise final : public Descent {
  using Descent::Descent;
  at::Tensor change(const at::Tensor& gradient) override { return gradient * -kRate + at::randn_like(gradient) * 1e-3; }
};
class Climbs final : public Descent {
  using Descent::Descent;
  at::Tensor change(const at::Tensor& gradient) override { return gradient * kRate; }
};
class SumsItsLoss final : public Descent {
  using Descent::Descent;
  double mean(double nats, std::uint64_t) const override { return nats; }
};
class LeavesDropoutOn final : public Descent {
  using Descent::Descent;
  void begin(Model& model, const TrainContext& context) override { model.enable_dropout(context.seed); }
};
class HidesAState final : public Descent {  // says that it is stateless
  using Descent::Descent;
  at::Tensor change(const at::Tensor& gradient) override { return gradient * (-kRate / ++calls_); }
  double calls_ = 1;
};
class Boasts final : public Descent {
  using Descent::Descent;
  std::uint64_t steps(std::uint64_t examples) const override { return Descent::steps(examples) * 2; }
};
class TakesTheAdapterOut final : public Descent {
  using Descent::Descent;
  TrainResult train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) override {
    const auto result = Descent::train(model, adapter, data, context);
    model.inject({});
    return result;
  }
};

class WithChannel : public Descent {  // a mean of one number
 public:
  using Descent::Descent;
  std::vector<Channel> up(const Layout&) const override {
    return {{kChannel, {{{"sum", DType::f32, {1}}}, {{"", {0}}}}, Carry::Mean, Keep::Latest, true}};
  }
  std::vector<Channel> down(const Layout& standing) const override { return up(standing); }
  void receive(Model& model, Adapter& adapter, const Download& download) override {
    if (download.channel != kChannel) return Descent::receive(model, adapter, download);
    common_ = download.tensors.at(0).second.item<double>();
    held_ = hold(download.tensors.at(0).second);
  }
  at::Tensor change(const at::Tensor& gradient) override {
    sum_ += gradient.flatten()[0].item<double>();
    return Descent::change(gradient) * (1 + 0.01 * common_);
  }
  std::vector<at::Tensor> outgoing(std::string_view) override { return {at::zeros(shape()) + sum_}; }
  void begin(Model&, const TrainContext&) override { sum_ = 0; }

 protected:
  virtual std::vector<std::int64_t> shape() const { return {1}; }
  virtual at::Tensor hold(const at::Tensor&) const { return {}; }

 private:
  double sum_ = 0, common_ = 0;
  at::Tensor held_;
};
class WrongShape final : public WithChannel {
  using WithChannel::WithChannel;
  std::vector<std::int64_t> shape() const override { return {2}; }
};
class KeepsADownload final : public WithChannel {
  using WithChannel::WithChannel;
  at::Tensor hold(const at::Tensor& tensor) const override { return tensor; }
};

// A parameter `steps`: checks that play many rounds make few steps in each.
template <class T>
void add(PluginBuilder& plugin, const char* id, const char* summary) {
  plugin.add<T, Params>(id, summary).param(&Params::steps, "steps", "Steps of a round.", at_least(1));
}

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_trainers, "0.1.0") {
  using namespace planted;
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  add<Descent>(plugin, "right_descent", "Gradient descent.");
  add<WithChannel>(plugin, "right_channel", "Gradient descent with a channel.");
  add<MovesFrozen>(plugin, "moves_frozen", "Moves what is at rest.");
  add<DoesNotListen>(plugin, "does_not_listen", "Does not end when the host asks it to.");
  add<WallClock>(plugin, "wall_clock", "Its steps depend on the time of day.");
  add<GlobalNoise>(plugin, "global_noise", "Adds noise of the global generator.");
  add<Climbs>(plugin, "climbs", "Moves along the gradient instead of against it.");
  add<SumsItsLoss>(plugin, "sums_its_loss", "Its \"loss\" is a sum.");
  add<LeavesDropoutOn>(plugin, "leaves_dropout_on", "Switches dropout on and not off.");
  add<HidesAState>(plugin, "hides_a_state", "Its rate falls from round to round, and it says it has no state.");
  add<Boasts>(plugin, "boasts", "Plans twice the steps that it makes.");
  add<TakesTheAdapterOut>(plugin, "takes_the_adapter_out", "Leaves the model without injections.");
  add<WrongShape>(plugin, "wrong_channel_shape", "Sends two numbers where its channel has one.");
  add<KeepsADownload>(plugin, "keeps_a_download", "Holds what it received beyond the call.");
}
