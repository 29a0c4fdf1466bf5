#include "conformance/cohort.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <factors/pairs.hpp>
#include <hansa/layouts.hpp>
#include <hansa/updates.hpp>

namespace hansa::conformance {
namespace {

constexpr double kAlpha = 4;

std::vector<std::int64_t> shape_of(const at::Tensor& tensor) { return tensor.sizes().vec(); }

class LendingUpdates final : public Decorated {
 public:
  LendingUpdates(const Updates& inner, const Lending& lending) : Decorated(inner), lend_(lending.lend) {}
  at::Tensor delta(std::size_t client, std::size_t member) const override {
    return lend_(inner_.delta(client, member));
  }
  at::Tensor value(std::size_t client, std::size_t member) const override {
    return lend_(inner_.value(client, member));
  }
  at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const override {
    return lend_(inner_.slice(client, member, first, count));
  }

 private:
  const std::function<at::Tensor(const at::Tensor&)>& lend_;
};

}  // namespace

CohortShape cohort_shape(const Case& input, std::size_t fewest_clients, const std::string& groups, bool ranks_differ) {
  CohortShape shape;
  constexpr int kClients[] = {1, 2, 3, 5, 8};
  const std::vector<std::vector<std::int64_t>> lone[] = {
      {{3}}, {{}}, {{0}, {4, 5}}, {{64}, {2, 3, 4}}, {{33, 17}, {1}, {129}}};
  const std::vector<std::pair<std::int64_t, std::int64_t>> modules[] = {
      {}, {{3, 2}}, {{3, 5}}, {{6, 4}, {8, 8}}, {{12, 9}, {7, 16}}};
  const auto clients = fewest_clients - 1 + static_cast<std::size_t>(kClients[input.size]);
  shape.ranks.assign(clients, 0);
  const bool pairs_only = !groups.empty();
  if (!pairs_only) shape.lone = lone[input.size];
  shape.low_rank = modules[input.size];
  if (pairs_only && shape.low_rank.empty()) {
    shape.low_rank = {{2, 2}};
    shape.rank = 1;
  }
  if (ranks_differ && shape.rank > 1)
    for (std::size_t i = 0; i < clients; i += 2) shape.ranks[i] = 1;
  return shape;
}

std::string describe(const CohortShape& shape) {
  std::string text = shape.ranks.size() == 1 ? "1 client" : fmt::format("{} clients", shape.ranks.size());
  if (!shape.lone.empty()) text += fmt::format(", tensors {}", shapes_text(shape.lone));
  for (const auto& [out, in] : shape.low_rank)
    text += fmt::format(", a pair of rank {} for [{}, {}]", shape.rank, out, in);
  if (std::any_of(shape.ranks.begin(), shape.ranks.end(), [](double rank) { return rank != 0; }))
    text += ", every other client of rank 1";
  return text;
}

Cohort::Cohort(CohortShape shape, std::uint64_t seed) : shape_(std::move(shape)) {
  for (std::size_t i = 0; i < shape_.ranks.size(); ++i) {
    Client client;
    client.rank = shape_.ranks[i];
    client.who.node = 10 + 7 * i;
    client.who.weight = 1 + static_cast<double>((seed * 5 + i * 3) % 7) / 2;
    client.who.examples = client.who.tokens = static_cast<std::uint64_t>(10 * client.who.weight);
    client.who.steps = 4;
    for (const auto& spec : layout(client.rank).tensors)
      client.deltas[spec.name] = random_tensor(spec.shape, seed * 1000003 + i * 101 + client.deltas.size(), 0.1);
    clients_.push_back(std::move(client));
  }
}

Layout Cohort::layout(double rank) const {
  Layout layout;
  const auto add = [&](std::string name, std::vector<std::int64_t> shape) {
    layout.tensors.push_back({std::move(name), DType::f32, std::move(shape)});
    return static_cast<Index>(layout.tensors.size() - 1);
  };
  for (std::size_t i = 0; i < shape_.lone.size(); ++i)
    layout.groups.push_back({"", {add(fmt::format("model.norm.{}.bias", i), shape_.lone[i])}, 1});
  const auto r = rank > 0 ? static_cast<std::int64_t>(rank) : shape_.rank;
  for (std::size_t i = 0; i < shape_.low_rank.size(); ++i) {
    const auto [out, in] = shape_.low_rank[i];
    const auto a = add(fmt::format("model.layers.{}.proj.lora_A", i), {r, in});
    const auto b = add(fmt::format("model.layers.{}.proj.lora_B", i), {out, r});
    layout.groups.push_back({std::string(factors::kPairKind), {a, b}, kAlpha / static_cast<double>(r)});
  }
  return layout;
}

RoundPlan Cohort::plan(Round round) const {
  RoundPlan plan;
  plan.round = round;
  plan.base = round - 1;
  plan.population = clients_.size();
  plan.expected_cohort = static_cast<double>(clients_.size());
  for (const auto& client : clients_)
    plan.cohort.push_back(
        {.node = client.who.node, .examples = client.who.examples, .rank = client.rank, .last_seen = round - 1});
  return plan;
}

// ---- a round -----------------------------------------------------------------------------------------------------------

// The groups of one round as updates: what every view ships, by the exchange that the rule asks for.
class RoundOfUpdates {
 public:
  RoundOfUpdates(Aggregator& rule, Cohort& cohort, const RoundPlan& plan) {
    const auto own = view(rule, cohort, plan, {});
    std::map<std::string, Layout> views;
    for (std::size_t i = 0; i < cohort.clients_.size(); ++i) {
      auto& client = cohort.clients_[i];
      const auto [name, layout] = view(rule, cohort, plan, plan.cohort[i]);
      client.who.view = name;
      if (!name.empty()) views[name] = layout;
    }
    for (std::size_t g = 0; g < own.second.groups.size(); ++g) {
      auto& updates = groups_.emplace_back(group_of(own.second, g), specs_of(own.second, g));
      updates.stand(standing(own.second, g));
      for (const auto& [name, layout] : views) {
        updates.add_view(name, specs_of(layout, g), standing(layout, g));
        updates.rescale(name, layout.groups.at(g).scale);
      }
      for (const auto& client : cohort.clients_) {
        const auto& layout = client.who.view.empty() ? own.second : views.at(client.who.view);
        std::vector<at::Tensor> deltas;
        for (const auto& spec : specs_of(layout, g)) deltas.push_back(client.deltas.at(spec.name));
        updates.add(client.who, std::move(deltas));
      }
    }
  }
  const std::vector<testing::FakeUpdates>& groups() const { return groups_; }

 private:
  static std::pair<std::string, Layout> view(Aggregator& rule, const Cohort& cohort, const RoundPlan& plan,
                                             const NodeFacts& node) {
    const auto trainable = cohort.layout(node.rank);
    const auto exchange = rule.exchange(trainable, plan, node);
    hold(exchange.roles.size() == trainable.tensors.size(),
         fmt::format("exchange() gives {} roles for {} tensors", exchange.roles.size(), trainable.tensors.size()));
    return {exchange.view, part_of(trainable, exchange.roles, {Role::Shared})};
  }
  static std::vector<TensorSpec> specs_of(const Layout& layout, std::size_t group) {
    std::vector<TensorSpec> specs;
    for (auto member : layout.groups.at(group).members) specs.push_back(layout.tensors.at(member));
    return specs;
  }
  static Group group_of(const Layout& layout, std::size_t group) { return layout.groups.at(group); }
  static std::vector<at::Tensor> standing(const Layout& layout, std::size_t group) {
    std::vector<at::Tensor> values;
    for (const auto& spec : specs_of(layout, group))
      values.push_back(random_tensor(spec.shape, 77 + values.size(), 0.3));
    return values;
  }
  std::vector<testing::FakeUpdates> groups_;
};

std::vector<testing::FakeUpdates> groups_of(Aggregator& rule, Cohort& cohort, const RoundPlan& plan) {
  return RoundOfUpdates(rule, cohort, plan).groups();
}

Metrics play_round(Aggregator& rule, Cohort& cohort, Round round, Recorded& results, const Lending* lending,
                   Whole whole) {
  const auto plan = cohort.plan(round);
  const RoundOfUpdates updates(rule, cohort, plan);
  const auto each_group = [&](const auto& call) {
    for (const auto& group : updates.groups()) {
      results.of(group);
      if (lending) {
        call(LendingUpdates(group, *lending));
        lending->after_call();
      } else {
        call(group);
      }
      if (whole == Whole::HalfOfIt) return;
    }
  };
  if (lending) lending->before_round();
  rule.begin(plan);
  if (rule.surveys()) each_group([&](const Updates& group) { rule.survey(group); });
  each_group([&](const Updates& group) {
    rule.reduce(group, results);
    results.end_of_group();
  });
  return whole == Whole::Round ? rule.finish(results) : Metrics{};
}

// ---- results -----------------------------------------------------------------------------------------------------------

void Recorded::keep(const std::string& name, const at::Tensor& value) {
  if (keep_ == Keep::Copies) others_[name] = value.clone();
}
void Recorded::put(std::size_t member, const at::Tensor& delta) {
  if (member >= updates_->group().members.size())
    return note(fmt::format("put() of member {}, which the group does not have", member));
  const auto& spec = updates_->tensor(member);
  if (shape_of(delta) != spec.shape)
    note(fmt::format("put() gives '{}' the shape {} instead of {}", spec.name, shapes_text({shape_of(delta)}),
                     shapes_text({spec.shape})));
  if (delta.scalar_type() != at::kFloat) note(fmt::format("put() gives '{}' another type than fp32", spec.name));
  if (given_.contains(member)) note(fmt::format("'{}' is put twice", spec.name));
  given_[member] = spec.elements();
  if (keep_ == Keep::Copies) changes_[spec.name] = delta.clone();
}
void Recorded::put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) {
  if (member >= updates_->group().members.size())
    return note(fmt::format("put_slice() of member {}, which the group does not have", member));
  const auto& spec = updates_->tensor(member);
  if (first < 0 || first + part.numel() > spec.elements())
    return note(fmt::format("put_slice() of '{}' reaches beyond its {} elements", spec.name, spec.elements()));
  given_[member] += part.numel();
  if (keep_ == Keep::Nothing) return;
  auto& whole = changes_[spec.name];
  if (!whole.defined()) whole = at::zeros(spec.shape);
  whole.view({-1}).narrow(0, first, part.numel()).copy_(part.flatten());
}
void Recorded::put_for(std::string_view view, std::size_t member, const at::Tensor& value) {
  if (member >= updates_->group().members.size())
    return note(fmt::format("put_for() of member {}, which the group does not have", member));
  const auto& spec = updates_->tensor(member, view);
  if (shape_of(value) != spec.shape)
    note(fmt::format("put_for() gives '{}' of view '{}' the shape {} instead of {}", spec.name, view,
                     shapes_text({shape_of(value)}), shapes_text({spec.shape})));
  given_[member] = updates_->tensor(member).elements();
  keep(fmt::format("{} of view '{}'", spec.name, view), value);
}
void Recorded::append(std::string_view channel, std::string_view tensor, const at::Tensor& value) {
  keep(fmt::format("{} in channel '{}'", tensor, channel), value);
}
void Recorded::end_of_group() {
  for (std::size_t member = 0; member < updates_->group().members.size(); ++member) {
    const auto& spec = updates_->tensor(member);
    if (!given_.contains(member) && spec.elements() > 0)
      note(fmt::format("'{}' is never put", spec.name));
    else if (given_.contains(member) && given_.at(member) != spec.elements())
      note(fmt::format("of '{}' {} elements are put instead of {}", spec.name, given_.at(member), spec.elements()));
  }
  given_.clear();
}
NamedTensors Recorded::trace() const {
  NamedTensors all(changes_.begin(), changes_.end());
  all.insert(all.end(), others_.begin(), others_.end());
  return all;
}

}  // namespace hansa::conformance
