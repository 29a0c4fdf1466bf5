// Updates and Results that stand in memory, for the tests of an aggregator. No test framework; misuse throws.
//
//   FakeUpdates updates({"lora", {0, 1}, 2.0}, {{"q.lora_A", DType::f32, {4, 8}}, {"q.lora_B", DType::f32, {6, 4}}});
//   updates.add({.node = 7, .weight = 2}, {delta_A, delta_B});
//   FakeResults results;
//   rule.reduce(updates, results);
//   results.put_at(0); results.view_at("rank4", 1); results.appended("residual", "q.residual_B");
#pragma once
#include <map>
#include <stdexcept>
#include <utility>

#include <ATen/ops/zeros.h>
#include <hansa/aggregator.hpp>

namespace hansa::testing {

class FakeUpdates : public Updates {
 public:
  FakeUpdates(Group group, std::vector<TensorSpec> specs) : group_(std::move(group)) { add_view("", std::move(specs)); }
  // Shapes of a further view; `standing` is what its nodes were sent (zeros when left out).
  void add_view(const std::string& view, std::vector<TensorSpec> specs, std::vector<at::Tensor> standing = {}) {
    if (standing.empty()) {
      for (const auto& spec : specs) standing.push_back(at::zeros(spec.shape));
    }
    names_.push_back(view);
    views_[view] = {std::move(specs), std::move(standing), group_.scale};
  }
  void rescale(const std::string& view, double scale) { views_.at(view).scale = scale; }
  void stand(std::vector<at::Tensor> standing) { views_.at("").standing = std::move(standing); }
  void add(Contribution who, std::vector<at::Tensor> deltas) {
    clients_.push_back({std::move(who), std::move(deltas)});
  }

  const Group& group() const override { return group_; }
  std::span<const std::string> views() const override { return names_; }
  const TensorSpec& tensor(std::size_t member, std::string_view view = {}) const override {
    return view_at(view).specs.at(member);
  }
  double scale(std::string_view view) const override { return view_at(view).scale; }
  std::size_t clients() const override { return clients_.size(); }
  const Contribution& who(std::size_t client) const override { return clients_.at(client).who; }
  at::Tensor delta(std::size_t client, std::size_t member) const override {
    return clients_.at(client).deltas.at(member);
  }
  at::Tensor value(std::size_t client, std::size_t member) const override {
    return view_at(who(client).view).standing.at(member).add(delta(client, member));
  }
  at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const override {
    return delta(client, member).flatten().narrow(0, first, count).contiguous();
  }

 private:
  struct View {
    std::vector<TensorSpec> specs;
    std::vector<at::Tensor> standing;
    double scale = 1;
  };
  struct Client {
    Contribution who;
    std::vector<at::Tensor> deltas;
  };
  const View& view_at(std::string_view name) const {
    const auto found = views_.find(name);
    if (found == views_.end()) throw std::logic_error("no view '" + std::string(name) + "'");
    return found->second;
  }
  Group group_;
  std::vector<std::string> names_;
  std::map<std::string, View, std::less<>> views_;
  std::vector<Client> clients_;
};

class FakeResults : public Results {
 public:
  // `updates` is needed only where the rule puts slices.
  explicit FakeResults(const Updates* updates = nullptr) : updates_(updates) {}
  void put(std::size_t member, const at::Tensor& delta) override { put_[member] = delta; }
  void put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) override {
    if (!updates_) throw std::logic_error("FakeResults needs the updates to take slices");
    auto& whole = put_[member];
    if (!whole.defined()) whole = at::zeros(updates_->tensor(member).shape);
    whole.view({-1}).narrow(0, first, part.numel()).copy_(part.flatten());
  }
  void put_for(std::string_view view, std::size_t member, const at::Tensor& value) override {
    views_[{std::string(view), member}] = value;
  }
  void append(std::string_view channel, std::string_view tensor, const at::Tensor& value) override {
    appended_[{std::string(channel), std::string(tensor)}] = value;
  }

  const at::Tensor& put_at(std::size_t member) const { return put_.at(member); }
  std::size_t puts() const { return put_.size(); }
  const at::Tensor& view_at(const std::string& view, std::size_t member) const { return views_.at({view, member}); }
  const at::Tensor& appended(const std::string& channel, const std::string& tensor) const {
    return appended_.at({channel, tensor});
  }

 private:
  const Updates* updates_;
  std::map<std::size_t, at::Tensor> put_;
  std::map<std::pair<std::string, std::size_t>, at::Tensor> views_;
  std::map<std::pair<std::string, std::string>, at::Tensor> appended_;
};

}  // namespace hansa::testing
