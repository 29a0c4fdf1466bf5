// Aggregator `mischief` for tests of the host: a plain sum that, in one round, does what a plugin must not.
#include <chrono>
#include <cmath>
#include <csignal>
#include <limits>
#include <stdexcept>
#include <thread>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/aggregator.hpp>
#include <hansa/plugin.hpp>

namespace {

enum class What : std::uint8_t { Nothing, Throw, ThrowNumber, NotFinite, Shape, DType, Forget, Crash, Hang, Linger };

struct Params {
  What what = What::Nothing;
  std::int64_t round = 2;
};

class Mischief final : public hansa::Stateless<hansa::Aggregator> {
 public:
  Mischief(Params params, hansa::Host& host) : params_(params), host_(host) {}
  std::uint64_t workspace(const hansa::Layout&, const hansa::Group&, std::size_t) const override { return 0; }
  void begin(const hansa::RoundPlan& plan) override { now_ = plan.round == static_cast<hansa::Round>(params_.round); }
  void reduce(const hansa::Updates& updates, hansa::Results& results) override {
    if (now_) misbehave(updates, results);
    for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
      auto sum = at::zeros(updates.tensor(member).shape);
      for (std::size_t client = 0; client < updates.clients(); ++client)
        sum.add_(updates.delta(client, member), updates.who(client).weight);
      const bool done = now_ && (params_.what == What::Forget || params_.what == What::NotFinite);
      if (!done) results.put(member, sum);
    }
  }

 private:
  void misbehave(const hansa::Updates& updates, hansa::Results& results) const {
    const auto& shape = updates.tensor(0).shape;
    switch (params_.what) {
      case What::Nothing:
      case What::Forget: return;
      case What::Throw: throw std::runtime_error("the moon is full");
      case What::ThrowNumber: throw 42;
      case What::NotFinite: return results.put(0, at::full(shape, std::numeric_limits<float>::quiet_NaN()));
      case What::Shape: return results.put(0, at::zeros({1, 1, 1, 7}));
      case What::DType: return results.put(0, at::zeros(shape, at::TensorOptions().dtype(at::kLong)));
      case What::Crash: std::raise(SIGSEGV); return;
      case What::Hang:
        for (;;) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      case What::Linger:  // long, but it listens
        while (!host_.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        throw std::runtime_error("cancelled, as I was asked");
    }
  }

  Params params_;
  hansa::Host& host_;
  bool now_ = false;
};

}  // namespace

HANSA_PLUGIN(org_hansa_mischief, "0.1.0") {
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  plugin.add<Mischief, Params>("mischief", "A sum that misbehaves in one round.")
      .traits(HANSA_TRAIT_ADDITIVE)
      .param(&Params::what, "what", "What it does.",
             hansa::choices({"nothing", "throw", "throw_number", "not_finite", "shape", "dtype", "forget", "crash",
                             "hang", "linger"}))
      .param(&Params::round, "round", "In which round.", hansa::at_least(1));
}
