// A plugin of the made-up "aggregator/2": a sum that trusts one node less, and a rule that holds another.
#include "aggregator2.hpp"

#include <ATen/ops/zeros.h>
#include <hansa/plugin.hpp>

namespace {

struct DoubtParams {
  std::int64_t node = -1;
};
class Doubt final : public hansa::Stateless<hansa::next::Aggregator> {
 public:
  Doubt(DoubtParams params, hansa::Host& host) : params_(params), host_(host) {}
  ~Doubt() override { host_.log(hansa::Host::Level::Info, "doubt is gone"); }
  std::uint64_t workspace(const hansa::Layout&, const hansa::Group&, std::size_t clients) const override {
    return 100 * clients;
  }
  double trust(const hansa::Contribution& who) const override {
    return who.node == static_cast<hansa::NodeId>(params_.node) ? 0.5 : 1;
  }
  void reduce(const hansa::Updates& updates, hansa::Results& results) override {
    if (updates.clients() == 0) throw std::runtime_error("nobody came");
    for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
      auto sum = at::zeros(updates.tensor(member).shape);
      for (std::size_t client = 0; client < updates.clients(); ++client)
        sum.add_(updates.delta(client, member), updates.who(client).weight);
      results.put(member, sum);
    }
  }
  hansa::Metrics finish(hansa::Results&) override { return {{"revision", 2}}; }

 private:
  DoubtParams params_;
  hansa::Host& host_;
};

struct HoldParams {
  hansa::ComponentChoice inner;
};
class Hold final : public hansa::Stateless<hansa::next::Aggregator> {
 public:
  Hold(HoldParams params, hansa::Host& host) : inner_(host.inner<hansa::next::Aggregator>(params.inner.params)) {}
  std::uint64_t workspace(const hansa::Layout& layout, const hansa::Group& group, std::size_t clients) const override {
    return inner_->workspace(layout, group, clients) + 7;
  }
  void reduce(const hansa::Updates& updates, hansa::Results& results) override { inner_->reduce(updates, results); }

 private:
  std::shared_ptr<hansa::next::Aggregator> inner_;
};

}  // namespace

HANSA_PLUGIN(org_hansa_test_next, "2.0.0") {
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  plugin.add<Doubt, DoubtParams>("doubt", "A sum that trusts one node by half.")
      .traits(HANSA_TRAIT_ADDITIVE)
      .param(&DoubtParams::node, "node", "Which.");
  plugin.add<Hold, HoldParams>("hold", "Passes on.")
      .param(&HoldParams::inner, "inner", "The rule.", hansa::of_kind("aggregator"));
}
