// Kind "aggregator": how the updates of a cohort become one change, group by group. Pull-style: the rule asks for what it
// needs, so a mean holds one tensor, a median a slice of each client. Called on the fold thread, never concurrently.
#pragma once
#include <optional>
#include <span>

#include <hansa/component.hpp>

namespace hansa {

// One group of the "adapter" channel, as far as it travels this round, with all accepted clients in ascending NodeId. Nothing
// is decoded before it is asked for. Tensors are fp32, contiguous, on the CPU, and valid until the call that got this object
// returns. A wrapping rule may hand its inner one a view of its own (Decorated, updates.hpp).
class Updates {
 public:
  virtual ~Updates() = default;
  virtual const Group& group() const = 0;                  // only the Shared members
  virtual std::span<const std::string> views() const = 0;  // of the run; "" comes first
  virtual const TensorSpec& tensor(std::size_t member, std::string_view view = {}) const = 0;
  // Group::scale as nodes of this view have it: of low-rank pairs alpha / r depends on the view's rank.
  virtual double scale(std::string_view view) const {
    if (!view.empty()) throw std::runtime_error("this host does not say the scale of view '" + std::string(view) + "'");
    return group().scale;
  }
  virtual std::size_t clients() const = 0;
  virtual const Contribution& who(std::size_t client) const = 0;
  // Change against what this client had been sent; finite, clipped. Shapes follow the client's view.
  virtual at::Tensor delta(std::size_t client, std::size_t member) const = 0;
  // What the client now holds: sent (as it was decoded there) + delta.
  virtual at::Tensor value(std::size_t client, std::size_t member) const = 0;
  // `count` elements of the flattened delta from `first`: for rules that look at clients side by side in bounded memory.
  virtual at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const = 0;
};
class Results {
 public:
  virtual ~Results() = default;
  // The change of this member in the view "". An Additive rule gives the weighted sum: the host adds noise and divides.
  virtual void put(std::size_t member, const at::Tensor& delta) = 0;
  virtual void put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) = 0;
  // The new value of this member in one view, past the server optimiser. A rule that uses it gives every view of the run.
  virtual void put_for(std::string_view view, std::size_t member, const at::Tensor& value) = 0;
  // One tensor of this round's entry of a Log channel, or the new value of an own Latest channel's tensor. Also from finish().
  virtual void append(std::string_view channel, std::string_view tensor, const at::Tensor&) = 0;
};

class Aggregator : public Component {
 public:
  using InterfaceType = Aggregator;
  static constexpr std::string_view kKind = "aggregator/1";
  // What a round trains and moves for this node, whose trainable layout (at its rank) is given; pure. The default: everything
  // Shared, no channel beyond "adapter".
  virtual Exchange exchange(const Layout& trainable, const RoundPlan& plan, const NodeFacts& node) const;
  virtual std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const = 0;  // bytes held at once
  virtual void begin(const RoundPlan&) {}
  // One client's part of a Collect channel, its own or the trainer's, in the channel's order; clients in ascending NodeId, before all groups.
  virtual void collect(const Contribution&, std::string_view channel, std::span<const at::Tensor>) {}
  virtual bool surveys() const { return false; }
  virtual void survey(const Updates&) {}              // every group once, before the first reduce: norms, distances
  virtual void reduce(const Updates&, Results&) = 0;  // every group once; put every member
  virtual Metrics finish(Results&) { return {}; }     // may append
  // One entry that says the same as all of these, oldest first; nothing: this log is never compacted. Pure.
  virtual std::optional<NamedTensors> compact(std::string_view channel, std::span<const Download> entries) const {
    return std::nullopt;
  }
};

inline Exchange Aggregator::exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const {
  return {.roles = std::vector<Role>(trainable.tensors.size(), Role::Shared)};
}

}  // namespace hansa
