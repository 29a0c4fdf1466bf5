// Aggregator "bucketing" (arXiv 2006.09365): before another rule looks at the updates, they are put into buckets at random and
// each bucket is averaged, so that honest clients with unlike data look alike to a robust rule. The inner rule sees a
// decorated view in which a bucket is a client; nothing is computed before it asks. Which client is in which bucket is a
// function of the run's seed, the round and the cohort. State, logs and channels downwards are the inner rule's.
#pragma once
#include <memory>
#include <vector>

#include <hansa/schema.hpp>
#include <hansa/updates.hpp>

namespace hansa::bucketing {

struct Params {
  ComponentChoice inner;
  std::int64_t size = 2;
};
std::uint64_t traits(const Params&);

// Positions of clients by bucket; buckets in the order of their first node, clients in the order of nodes.
std::vector<std::vector<std::size_t>> draw(const Updates&, std::size_t size, std::uint64_t seed);

class Buckets final : public Decorated {
 public:
  Buckets(const Updates& clients, std::size_t size, std::uint64_t seed);
  std::size_t clients() const override { return buckets_.size(); }
  const Contribution& who(std::size_t bucket) const override { return who_.at(bucket); }
  at::Tensor delta(std::size_t bucket, std::size_t member) const override;
  at::Tensor value(std::size_t bucket, std::size_t member) const override;
  at::Tensor slice(std::size_t bucket, std::size_t member, std::int64_t first, std::int64_t count) const override;

 private:
  template <class Get>
  at::Tensor mean(std::size_t bucket, Get get) const;

  std::vector<std::vector<std::size_t>> buckets_;
  std::vector<Contribution> who_;
};

class Bucketing final : public Aggregator {
 public:
  Bucketing(Params params, Host& host);
  std::uint32_t state_version() const override { return inner_->state_version(); }
  void save(StateWriter& to) const override { inner_->save(to); }
  void load(const StateReader& from, std::uint32_t version) override { inner_->load(from, version); }

  Exchange exchange(const Layout&, const RoundPlan&, const NodeFacts&) const override;
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override;
  void begin(const RoundPlan&) override;
  bool surveys() const override { return inner_->surveys(); }
  void survey(const Updates&) override;
  void reduce(const Updates&, Results&) override;
  Metrics finish(Results& results) override { return inner_->finish(results); }
  std::optional<NamedTensors> compact(std::string_view channel, std::span<const Download> entries) const override {
    return inner_->compact(channel, entries);
  }

 private:
  std::size_t size_;
  std::uint64_t seed_, round_seed_ = 0;
  std::shared_ptr<Aggregator> inner_;  // shared: that is how a host gives an inner component; nobody else holds it
};

}  // namespace hansa::bucketing
