#include "nn/places.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"

namespace hansa::nn {

std::string shape_text(const at::Tensor& tensor) { return fmt::format("{}", fmt::join(tensor.sizes(), " x ")); }

std::vector<std::int64_t> weight_shape(const Module& module) {
  if (module.kind == Module::Kind::Norm) return {module.out};
  if (module.kind == Module::Kind::Embedding) return {module.in, module.out};
  return {module.out, module.in};
}

Places::Places(std::vector<Module> modules) {
  places_.reserve(modules.size());
  for (auto& module : modules) {
    index_.emplace(module.name, places_.size());
    places_.push_back({.module = std::move(module)});
  }
}

const Place& Places::at(std::string_view module) const {
  auto found = index_.find(module);
  if (found == index_.end())
    throw Error(fmt::format("this model has no module '{}'; its first is '{}' and its last '{}'", module,
                            places_.empty() ? "" : places_.front().module.name,
                            places_.empty() ? "" : places_.back().module.name));
  return places_[found->second];
}
Place& Places::at(std::string_view module) { return const_cast<Place&>(std::as_const(*this).at(module)); }

namespace {

void expect(const Module& module, std::string_view what, const at::Tensor& tensor, std::vector<std::int64_t> shape) {
  if (!tensor.defined()) throw Error(fmt::format("injection into '{}': {} is missing", module.name, what));
  if (tensor.sizes() != at::IntArrayRef(shape))
    throw Error(fmt::format("injection into '{}': {} is {}, it must be {}", module.name, what, shape_text(tensor),
                            fmt::join(shape, " x ")));
  if (!tensor.is_floating_point())
    throw Error(fmt::format("injection into '{}': {} must hold real numbers", module.name, what));
}

void check(const Module& module, const LowRank& pair) {
  if (module.kind != Module::Kind::Linear && module.kind != Module::Kind::Head)
    throw Error(
        fmt::format("a low-rank pair cannot go into '{}': it is an embedding or a norm, not a linear module. "
                    "Choose linear modules as targets",
                    module.name));
  expect(module, "A", pair.A, {pair.A.defined() && pair.A.dim() == 2 ? pair.A.size(0) : 1, module.in});
  expect(module, "B", pair.B, {module.out, pair.A.size(0)});
}
void check(const Module& module, const Replace& replace) {
  if (replace.weight.defined()) expect(module, "weight", replace.weight, weight_shape(module));
  if (replace.bias.defined() && module.bias) expect(module, "bias", replace.bias, {module.out});
  if (!replace.weight.defined() && !replace.bias.defined())
    throw Error(fmt::format("injection into '{}': neither a weight nor a bias to replace", module.name));
  if (!module.bias && replace.bias.defined())
    throw Error(fmt::format("injection into '{}': the module has no bias to replace", module.name));
}
template <class Other>
void check(const Module& module, const Other&) {
  throw Error(
      fmt::format("injection into '{}': this model takes low-rank pairs and replaced weights only", module.name));
}

// A second injection into a module.
void check_further(const Injection& injection, const Injection& first) {
  const auto* pair = std::get_if<LowRank>(&injection.what);
  if (!pair || !std::holds_alternative<LowRank>(first.what))
    throw Error(fmt::format("two injections into '{}': only low-rank pairs may share a module", injection.module));
  if (pair->A.requires_grad() || pair->B.requires_grad())
    throw Error(fmt::format("two injections into '{}' train: pairs after the first must be fixed", injection.module));
  if (pair->dropout != 0)
    throw Error(fmt::format("injection into '{}': a fixed pair takes no dropout", injection.module));
}

}  // namespace

void Places::inject(std::span<const Injection> injections) {
  std::map<std::string_view, const Injection*> seen;
  for (const auto& injection : injections) {
    const Place& place = at(injection.module);
    std::visit([&](const auto& what) { check(place.module, what); }, injection.what);
    const auto [first, alone] = seen.emplace(injection.module, &injection);
    if (!alone) check_further(injection, *first->second);
  }
  for (auto& place : places_) {
    place.injected = std::monostate{};
    place.fixed.clear();
  }
  for (const auto& injection : injections) {
    auto& place = at(injection.module);
    if (const auto* pair = std::get_if<LowRank>(&injection.what); pair && place.injected.index() != 0)
      place.fixed.push_back(*pair);
    else if (pair)
      place.injected = *pair;
    else
      place.injected = std::get<Replace>(injection.what);
  }
}

std::pair<at::Tensor, at::Tensor> Places::folded(const Place& place, const at::Tensor& base_weight,
                                                 const at::Tensor& base_bias) {
  at::NoGradGuard no_grad;
  if (const auto* replace = std::get_if<Replace>(&place.injected)) {
    const auto chosen = [](const at::Tensor& own, const at::Tensor& base) {
      return own.defined() ? own.detach().to(at::kFloat) : base;
    };
    return {chosen(replace->weight, base_weight), chosen(replace->bias, base_bias)};
  }
  if (const auto* pair = std::get_if<LowRank>(&place.injected)) {
    auto change = at::mm(pair->B.detach().to(at::kFloat), pair->A.detach().to(at::kFloat));
    auto weight = base_weight + change * pair->scale;
    for (const auto& side : place.fixed) weight.addmm_(side.B.to(at::kFloat), side.A.to(at::kFloat), 1, side.scale);
    return {weight, base_bias};
  }
  return {base_weight, base_bias};
}

}  // namespace hansa::nn
