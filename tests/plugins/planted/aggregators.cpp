// Aggregators with one bug each. The right one is their base, so that each bug is the lines that differ.
#include <cstdlib>
#include <thread>

#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <hansa/aggregator.hpp>
#include <hansa/plugin.hpp>

namespace planted {
using namespace hansa;

constexpr std::uint64_t kMeanTraits =
    HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_ELEMENTWISE_MEAN | HANSA_TRAIT_NEEDS_INDIVIDUALS;

class Mean : public Stateless<Aggregator> {
 public:
  std::uint64_t workspace(const Layout& layout, const Group& group, std::size_t) const override {
    std::int64_t largest = 0;
    for (auto member : group.members) largest = std::max(largest, layout.tensors.at(member).elements());
    return 3 * sizeof(float) * static_cast<std::uint64_t>(largest);
  }
  void reduce(const Updates& updates, Results& results) override {
    for (std::size_t member = 0; member < updates.group().members.size(); ++member)
      results.put(member, mean(updates, member));
  }

 protected:
  virtual double weight(const Updates& updates, std::size_t client) const { return updates.who(client).weight; }
  virtual at::Tensor mean(const Updates& updates, std::size_t member) {
    auto sum = at::zeros(updates.tensor(member).shape);
    double weights = 0;
    for (std::size_t client = 0; client < updates.clients(); ++client) {
      sum.add_(updates.delta(client, member), weight(updates, client));
      weights += weight(updates, client);
    }
    return sum.div_(weights);
  }
};

class DependsOnOrder final : public Mean {
  double weight(const Updates& updates, std::size_t client) const override {
    return Mean::weight(updates, client) * (client == 0 ? 2 : 1);
  }
};
class AbsoluteWeights final : public Mean {  // a floor that is no share
  double weight(const Updates& updates, std::size_t client) const override {
    return std::max(Mean::weight(updates, client), 2.0);
  }
};
class KeepsAnInput final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    kept_ = updates.delta(0, member);
    return Mean::mean(updates, member);
  }
  at::Tensor kept_;
};
class WritesToAnInput final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    auto mean = Mean::mean(updates, member);
    updates.delta(0, member).mul_(0.5);
    return mean;
  }
};
// Server momentum inside the rule, by tensor name.
class Momentum : public Aggregator {
 public:
  std::uint64_t workspace(const Layout& layout, const Group& group, std::size_t clients) const override {
    return mean_.workspace(layout, group, clients) * 4 / 3;
  }
  void reduce(const Updates& updates, Results& results) override {
    for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
      auto sum = at::zeros(updates.tensor(member).shape);
      double weights = 0;
      for (std::size_t client = 0; client < updates.clients(); ++client) {
        sum.add_(updates.delta(client, member), updates.who(client).weight);
        weights += updates.who(client).weight;
      }
      auto& speed = speeds_[updates.tensor(member).name];
      speed = speed.defined() ? speed.mul(0.5).add(sum.div_(weights)) : sum.div_(weights);
      results.put(member, speed);
    }
  }
  std::uint32_t state_version() const override { return 1; }
  void save(StateWriter& out) const override {
    std::string names;
    for (const auto& [name, speed] : speeds_) {
      out.put(name, speed);
      names += name + '\n';
    }
    out.put("names", names);
  }
  void load(const StateReader& in, std::uint32_t version) override {
    if (version != 1) throw std::runtime_error("only version 1 of this state is known");
    const auto names = in.bytes("names");
    for (std::size_t from = 0, to; (to = names.find('\n', from)) != std::string::npos; from = to + 1) {
      const auto name = names.substr(from, to - from);
      speeds_[name] = in.tensor(name).clone();
    }
  }

 protected:
  Mean mean_;
  std::map<std::string, at::Tensor> speeds_;
};
class ForgetsState final : public Momentum {
  void save(StateWriter& out) const override { out.put("names", std::string_view()); }
};
class HidesState final : public Momentum {
  std::uint32_t state_version() const override { return 0; }
};
class TakesAnyState final : public Momentum {
  void load(const StateReader& in, std::uint32_t) override {
    if (in.has("names")) Momentum::load(in, 1);
  }
};
class Sum : public Mean {
 protected:
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    auto sum = at::zeros(updates.tensor(member).shape);
    for (std::size_t client = 0; client < updates.clients(); ++client)
      sum.add_(part(updates, client, member), updates.who(client).weight);
    return sum;
  }
  virtual at::Tensor part(const Updates& updates, std::size_t client, std::size_t member) {
    return updates.delta(client, member);
  }
};
class IgnoresWeights final : public Sum {
  at::Tensor part(const Updates& updates, std::size_t client, std::size_t member) override {
    return updates.delta(client, member).div(updates.who(client).weight);
  }
};
class NotTheSum final : public Sum {  // clamps each client's part: the clients' sum as one client is clamped elsewhere
  at::Tensor part(const Updates& updates, std::size_t client, std::size_t member) override {
    return updates.delta(client, member).clamp(-0.1, 0.1);
  }
};
class HoldsEverything final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    std::vector<at::Tensor> all;
    for (std::size_t client = 0; client < updates.clients(); ++client) all.push_back(updates.delta(client, member));
    return Mean::mean(updates, member);
  }
};
class HoldsEverythingElsewhere final : public Mean {  // beside LibTorch's allocator
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    std::vector<std::vector<float>> all;
    for (std::size_t client = 0; client < updates.clients(); ++client) {
      const auto delta = updates.delta(client, member);
      all.emplace_back(delta.const_data_ptr<float>(), delta.const_data_ptr<float>() + delta.numel());
    }
    return Mean::mean(updates, member);
  }
};
class GlobalGenerator final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    return Mean::mean(updates, member).add(static_cast<double>(rand()) / RAND_MAX * 1e-3);
  }
};
class Leaks final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    lost_ = new std::vector<float>(64);
    return Mean::mean(updates, member);
  }
  std::vector<float>* lost_ = nullptr;
};
class ThrowsAcrossAThread final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    std::thread([] { throw std::runtime_error("from a thread of its own"); }).join();
    return Mean::mean(updates, member);
  }
};
class StartsAThread final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    std::thread([] { std::this_thread::sleep_for(std::chrono::minutes(10)); }).detach();
    return Mean::mean(updates, member);
  }
};
class ReturnsNan final : public Mean {  // the sample variance of one client
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    const auto n = static_cast<double>(updates.clients());
    return Mean::mean(updates, member).add((n - 1) / (n - 1) - 1);
  }
};
class WrongShape final : public Mean {
  at::Tensor mean(const Updates& updates, std::size_t member) override { return Mean::mean(updates, member).flatten(); }
};
class ForgetsAMember final : public Mean {
  void reduce(const Updates& updates, Results& results) override { results.put(0, mean(updates, 0)); }
};
class DiesHalfWay final : public Mean {
  void begin(const RoundPlan&) override { open_ = true; }
  Metrics finish(Results&) override {
    open_ = false;
    return {};
  }
  bool open_ = false;

 public:
  ~DiesHalfWay() override {
    if (open_) std::abort();
  }
};
class HalfOfAMean final : public Mean {  // declared ElementwiseMean
  at::Tensor mean(const Updates& updates, std::size_t member) override { return Mean::mean(updates, member).mul(0.5); }
};
class MaxFromASum final : public Mean {  // declares nothing that would stop a host from handing it the sum alone
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    auto most = updates.delta(0, member).clone();
    for (std::size_t client = 1; client < updates.clients(); ++client)
      most = at::maximum(most, updates.delta(client, member));
    return most;
  }
};
class CutsIntoTensors final : public Mean {  // declared Flat: each tensor is scaled by its own norm
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    const auto mean = Mean::mean(updates, member);
    return mean.div(mean.norm().add(1));
  }
};
class ImpureExchange final : public Mean {
  void begin(const RoundPlan&) override { ++rounds_; }
  Exchange exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const override {
    return {.roles = std::vector<Role>(trainable.tensors.size(), rounds_ % 2 ? Role::Frozen : Role::Shared)};
  }
  int rounds_ = 0;
};
struct Trim {
  double share = 0.1;
};
class FailsAtTheEdge final : public Mean {
 public:
  explicit FailsAtTheEdge(Trim trim) : trim_(trim) {}

 private:
  at::Tensor mean(const Updates& updates, std::size_t member) override {
    if (trim_.share >= 1) throw std::runtime_error("nobody is left");
    return Mean::mean(updates, member);
  }
  Trim trim_;
};

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_aggregators, "0.1.0") {
  using namespace planted;
  const auto mean = [&]<class Rule>(Rule*, const char* id, const char* bug) {
    plugin.add<Rule>(id, bug).traits(kMeanTraits);
  };
  mean((Mean*)nullptr, "right_mean", "Nothing is wrong with it.");
  plugin.add<Momentum>("right_momentum", "Nothing is wrong with it.")
      .traits(HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_KEEPS_HISTORY);
  plugin.add<Momentum>("keeps_a_quiet_history", "Has a momentum and does not declare KeepsHistory.")
      .traits(HANSA_TRAIT_ORDER_FREE);
  plugin.add<Mean>("exact_in_name", "Declares Exact, and averages each factor by itself.")
      .groups("lora")
      .traits(kMeanTraits | HANSA_TRAIT_EXACT);
  plugin.add<CutsIntoTensors>("cuts_into_tensors", "Declares Flat, and looks at each tensor by itself.")
      .traits(kMeanTraits | HANSA_TRAIT_FLAT);
  mean((HalfOfAMean*)nullptr, "half_of_a_mean", "Declares ElementwiseMean and gives half of it.");
  plugin.add<MaxFromASum>("max_from_a_sum", "Looks at single clients and does not declare NeedsIndividuals.")
      .traits(HANSA_TRAIT_ORDER_FREE);
  plugin.add<Sum>("right_sum", "Nothing is wrong with it.")
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_ELEMENTWISE_MEAN);
  mean((DependsOnOrder*)nullptr, "depends_on_order", "The first client counts twice.");
  plugin.add<IgnoresWeights>("ignores_weights", "Declares Additive, and all clients count the same.")
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE);
  mean((AbsoluteWeights*)nullptr, "absolute_weights", "Weights have a floor, as if they were not relative.");
  mean((KeepsAnInput*)nullptr, "keeps_an_input", "Holds a lent tensor after the call.");
  mean((WritesToAnInput*)nullptr, "writes_to_an_input", "Halves a client's tensor in place.");
  plugin.add<ForgetsState>("forgets_state", "Saves nothing of its momentum.").traits(HANSA_TRAIT_ORDER_FREE);
  plugin.add<HidesState>("hides_state", "Has a momentum and says that it has no state.").traits(HANSA_TRAIT_ORDER_FREE);
  plugin.add<TakesAnyState>("takes_any_state", "Loads a state of a later version.").traits(HANSA_TRAIT_ORDER_FREE);
  plugin.add<NotTheSum>("not_the_sum", "Declares Additive and clamps each client.")
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE);
  mean((HoldsEverything*)nullptr, "holds_everything", "States three tensors and holds all clients'.");
  mean((HoldsEverythingElsewhere*)nullptr, "holds_everything_elsewhere",
       "States three tensors and holds all clients' in vectors.");
  mean((GlobalGenerator*)nullptr, "global_generator", "Draws from rand().");
  mean((Leaks*)nullptr, "leaks", "Loses 280 bytes with each tensor.");
  mean((ThrowsAcrossAThread*)nullptr, "throws_across_a_thread", "A thread of its own throws.");
  mean((StartsAThread*)nullptr, "starts_a_thread", "A thread of its own stays.");
  mean((ReturnsNan*)nullptr, "returns_nan", "NaN for a single client.");
  mean((WrongShape*)nullptr, "wrong_shape", "Gives every tensor flat.");
  mean((ForgetsAMember*)nullptr, "forgets_a_member", "Puts the first tensor of a group only.");
  mean((DiesHalfWay*)nullptr, "dies_half_way", "Aborts when destroyed within a round.");
  mean((ImpureExchange*)nullptr, "impure_exchange", "Its exchange depends on how often it was used.");
  plugin.add<FailsAtTheEdge, Trim>("fails_at_the_edge", "Its range allows what it cannot do.")
      .traits(kMeanTraits)
      .param(&Trim::share, "share", "Share that is left out.", hansa::range(0, 1));
}
