// Kind "aggregator": how the updates of a cohort become one change, group by group. Pull-style: the rule asks for what it
// needs, so a mean holds one tensor, a median a slice of each client. Called on the fold thread, never concurrently.
#pragma once
#include <hansa/component.hpp>

namespace hansa {

// One group of one Sum channel, all accepted clients in ascending NodeId. Nothing is decoded before it is asked for.
// Tensors are fp32, contiguous, on the CPU, and valid until the call that got this object returns.
class Updates {
 public:
  virtual ~Updates() = default;
  virtual const Group& group() const = 0;
  virtual const TensorSpec& tensor(std::size_t member) const = 0;
  virtual std::size_t clients() const = 0;
  virtual const Contribution& who(std::size_t client) const = 0;
  // Change against what this client had been sent; finite, clipped. Shapes follow the client's view.
  virtual at::Tensor delta(std::size_t client, std::size_t member) const = 0;
  // What the client now holds: sent + delta.
  virtual at::Tensor value(std::size_t client, std::size_t member) const = 0;
  // `count` elements of the flattened delta from `first`: for rules that look at clients side by side in bounded memory.
  virtual at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const = 0;
};
class Results {
 public:
  virtual ~Results() = default;
  // The change of this member. An Additive rule gives the weighted sum: the host adds noise and divides.
  virtual void put(std::size_t member, const at::Tensor& delta) = 0;
  virtual void put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) = 0;
};

class Aggregator : public Component {
 public:
  using InterfaceType = Aggregator;
  static constexpr std::string_view kKind = "aggregator/1";
  // What a round trains and moves; pure. The default: everything Shared, one Sum channel "adapter" each way.
  virtual Exchange exchange(const Layout& trainable, const RoundPlan& plan, const NodeFacts& node) const;
  virtual std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const = 0;  // bytes held at once
  virtual void begin(const RoundPlan&) {}
  virtual bool surveys() const { return false; }
  virtual void survey(const Updates&) {}              // every group once, before the first reduce: norms, distances
  virtual void reduce(const Updates&, Results&) = 0;  // every group once; put every member
  virtual Metrics finish() { return {}; }
};

inline Exchange Aggregator::exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const {
  Exchange all;
  all.roles.assign(trainable.tensors.size(), Role::Shared);
  all.up.push_back({std::string(kAdapterChannel), trainable});
  all.down = all.up;
  return all;
}

}  // namespace hansa
