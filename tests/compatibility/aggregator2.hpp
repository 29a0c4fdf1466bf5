// A made-up revision 2 of kind "aggregator", which shows that one host serves two revisions at once: a virtual function more,
// in the middle of the vtable, so that a pointer to the one used as the other would run the wrong function.
//
// This is what a real one looks like, but for its place: the new interface in the SDK takes the name hansa::Aggregator, and
// the frozen old one gets a name of its own in the host, which is then the only one to know it.
#pragma once
#include <hansa/aggregator.hpp>
#include <hansa/updates.hpp>

namespace hansa::next {

class Aggregator : public Component {
 public:
  using InterfaceType = Aggregator;
  static constexpr std::string_view kKind = "aggregator/2";
  virtual Exchange exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const {
    return {.roles = std::vector<Role>(trainable.tensors.size(), Role::Shared)};
  }
  virtual std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const = 0;
  virtual void begin(const RoundPlan&) {}
  // New: what of a client's weight counts; the host multiplies. Revision 1 left that to the rule.
  virtual double trust(const Contribution&) const { return 1; }
  virtual void collect(const Contribution&, std::string_view channel, std::span<const at::Tensor>) {}
  virtual bool surveys() const { return false; }
  virtual void survey(const Updates&) {}
  virtual void reduce(const Updates&, Results&) = 0;
  virtual Metrics finish(Results&) { return {}; }
  virtual std::optional<NamedTensors> compact(std::string_view channel, std::span<const Download> entries) const {
    return std::nullopt;
  }
};

// What the host of the time does with trust().
class Trusted final : public Decorated {
 public:
  Trusted(const Updates& inner, const Aggregator& rule) : Decorated(inner) {
    for (std::size_t client = 0; client < inner.clients(); ++client) {
      who_.push_back(inner.who(client));
      who_.back().weight *= rule.trust(who_.back());
    }
  }
  const Contribution& who(std::size_t client) const override { return who_.at(client); }

 private:
  std::vector<Contribution> who_;
};

}  // namespace hansa::next
