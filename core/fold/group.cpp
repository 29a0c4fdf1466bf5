#include "fold/group.hpp"

#include <algorithm>

#include <ATen/ops/add.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "tensor/reduce.hpp"

namespace hansa::fold {
namespace {

const OpenView& find_view(const std::deque<OpenView>& views, std::string_view name) {
  const auto found = std::find_if(views.begin(), views.end(), [&](const auto& view) { return view.plan.name == name; });
  if (found == views.end()) throw Error(fmt::format("this run has no view '{}'", name));
  return *found;
}

void require(const at::Tensor& tensor, const TensorSpec& spec) {
  if (!tensor.defined() || tensor.scalar_type() != at::kFloat || !tensor.sizes().equals(spec.shape))
    throw Error(fmt::format("what it put for {} is not fp32 of its shape", spec.name));
}

}  // namespace

GroupUpdates::GroupUpdates(const Group& group, const std::deque<OpenView>& views, const std::deque<OpenClient>& clients,
                           const std::vector<std::string>& names)
    : group_(group), views_(views), clients_(clients), names_(names) {}

const OpenView& GroupUpdates::view_at(std::string_view name) const {
  return name.empty() ? views_.front() : find_view(views_, name);
}
const TensorSpec& GroupUpdates::tensor(std::size_t member, std::string_view view) const {
  return view_at(view).shared->layout.tensors[group_.members.at(member)];
}
// Groups of all views stand in one order: they are the same tensors at another rank.
double GroupUpdates::scale(std::string_view view) const {
  const auto& groups = views_.front().shared->layout.groups;
  return view_at(view).shared->layout.groups.at(static_cast<std::size_t>(&group_ - groups.data())).scale;
}
at::Tensor GroupUpdates::delta(std::size_t client, std::size_t member) const {
  const auto& from = clients_.at(client);
  return from.tensor(*from.view.shared, group_.members.at(member));
}
at::Tensor GroupUpdates::value(std::size_t client, std::size_t member) const {
  const auto& from = clients_.at(client);
  const auto& spec = from.view.shared->layout.tensors[group_.members.at(member)];
  return from.view.sent(kAdapterChannel, spec).add(delta(client, member));
}
at::Tensor GroupUpdates::slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const {
  const auto& from = clients_.at(client);
  return from.slice(*from.view.shared, group_.members.at(member), first, count);
}

GroupResults::GroupResults(const Group* group, const std::deque<OpenView>& views, LogFile& log)
    : group_(group), views_(views), log_(log), changes_(group ? group->members.size() : 0) {}

const TensorSpec& GroupResults::spec(std::size_t member, const OpenView& view) const {
  if (!group_) throw Error("it put a tensor after the last group; only append is left then");
  return view.shared->layout.tensors[group_->members.at(member)];
}

void GroupResults::put(std::size_t member, const at::Tensor& delta) {
  require(delta, spec(member, views_.front()));
  changes_.at(member) = delta.contiguous();
}

void GroupResults::put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) {
  const auto& whole_spec = spec(member, views_.front());
  if (first < 0 || first + part.numel() > whole_spec.elements() || part.scalar_type() != at::kFloat) {
    throw Error(fmt::format("it put {} elements at {} into {}, which has {}", part.numel(), first, whole_spec.name,
                            whole_spec.elements()));
  }
  auto& whole = changes_.at(member);
  if (!whole.defined()) whole = at::zeros(whole_spec.shape, at::kFloat);
  whole.view({-1}).narrow(0, first, part.numel()).copy_(part.flatten());
}

void GroupResults::put_for(std::string_view view, std::size_t member, const at::Tensor& value) {
  const auto& where = find_view(views_, view);
  const auto& its_spec = spec(member, where);
  require(value, its_spec);
  auto kept = value.contiguous();
  if (!squared_norm(kept).all_finite())
    throw Error(fmt::format("what it put for {} is not finite; nothing was released", its_spec.name));
  values_[{&where, member}] = std::move(kept);
}

void GroupResults::append(std::string_view channel, std::string_view tensor, const at::Tensor& value) {
  log_.append(channel, tensor, value);
}

at::Tensor GroupResults::take(std::size_t member) {
  if (changes_.at(member).defined()) return std::move(changes_[member]);
  if (values_.contains({&views_.front(), member})) return {};
  throw Error(fmt::format("it put nothing for {}", spec(member, views_.front()).name));
}

at::Tensor GroupResults::take_for(const OpenView& view, std::size_t member) {
  const auto found = values_.find({&view, member});
  if (found == values_.end())
    throw Error(fmt::format("it put nothing for {} of view '{}'", spec(member, view).name, view.plan.name));
  return std::move(found->second);
}

}  // namespace hansa::fold
