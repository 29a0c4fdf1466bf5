// Components that misbehave on demand: see mischief.cpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <hansa/aggregator.hpp>
#include <hansa/compressor.hpp>
#include <hansa/privacy.hpp>
#include <hansa/selection.hpp>
#include <hansa/trainer.hpp>

namespace hansa::mischief {

enum class What : std::uint8_t {
  Nothing,
  Throw,
  ThrowNumber,
  NotFinite,
  Shape,
  DType,
  Forget,
  Crash,
  Hang,
  Linger,
  Exchange
};

class Rule final : public Stateless<Aggregator> {
 public:
  struct Params {
    What what = What::Nothing;
    std::int64_t round = 2;
    std::int64_t attempts = 0;
    bool personal = false;
  };
  Rule(Params params, Host& host) : params_(params), host_(host) {}
  Exchange exchange(const Layout&, const RoundPlan&, const NodeFacts&) const override;
  std::uint64_t workspace(const Layout&, const Group&, std::size_t) const override { return 0; }
  void begin(const RoundPlan&) override;
  void reduce(const Updates&, Results&) override;

 private:
  bool is_now(const RoundPlan&) const;
  Params params_;
  Host& host_;
  bool now_ = false;
};

class Codec final : public Stateless<Compressor> {
 public:
  struct Params {
    What what = What::Nothing;
    std::string node;
  };
  Codec(Params, Host&);
  SizePlan plan(const TensorSpec& in) const override;
  Encoded encode(const at::Tensor& in, Seeds) const override;
  at::Tensor decode(const Encoded&, const TensorSpec& out, std::uint64_t common) const override;

 private:
  What what_;
  Host& host_;
};

class Walker final : public Stateless<Trainer> {
 public:
  struct Params {
    What what = What::Nothing;
    std::int64_t round = 2;
    std::string node;
  };
  Walker(Params, Host&);
  std::uint64_t steps(std::uint64_t) const override { return 1; }
  std::vector<Channel> up(const Layout& standing) const override;
  std::vector<Channel> down(const Layout& standing) const override { return up(standing); }
  void receive(Model&, Adapter&, const Download&) override {}
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override;
  std::vector<at::Tensor> outgoing(std::string_view channel) override;

 private:
  What what_, now_ = What::Nothing;
  std::int64_t round_;
  Host& host_;
};

class Chooser final : public Stateless<Selector> {
 public:
  struct Params {
    What what = What::Nothing;
    std::int64_t round = 2;
  };
  Chooser(Params params, Host& host) : params_(params), host_(host) {}
  double expected_cohort(std::size_t population) const override { return static_cast<double>(population); }
  double sampling_rate(std::size_t) const override { return 1; }
  std::vector<NodeId> choose(std::span<const NodeFacts>, DrawRng&) override;

 private:
  Params params_;
  Host& host_;
};

class Bound final : public Stateless<Privacy> {
 public:
  enum class When : std::uint8_t { Never, ClipBound, Event, BeginRelease };
  struct Params {
    When when = When::Never;
    std::int64_t round = 2;
  };
  Bound(Params params, Host&) : params_(params) {}
  double clip_bound(const RoundPlan&) const override;
  std::optional<DpEvent> event(const RoundPlan&) const override;
  void begin_release(const RoundPlan&, const Sensitivity&) override;

 private:
  void fail(When, const RoundPlan&) const;
  Params params_;
};

class Patience final : public Stateless<RoundPolicy> {
 public:
  struct Params {
    What what = What::Nothing;
  };
  Patience(Params params, Host& host) : params_(params), host_(host) {}
  Next decide(const RoundStatus&) override;
  double deadline_seconds() const override { return std::numeric_limits<double>::infinity(); }

 private:
  Params params_;
  Host& host_;
};

}  // namespace hansa::mischief
