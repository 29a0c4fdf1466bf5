#include "lora.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <factors/factors.hpp>
#include <hansa/plugin.hpp>
#include <nn/dropout.hpp>

#include "base/error.hpp"

namespace hansa::lora {

namespace {

constexpr std::string_view kAllLinear = "all-linear";
constexpr std::string_view kResidual = "residual", kResidualA = ".residual_A", kResidualB = ".residual_B";
constexpr double kNothing = 1e-8;  // of the largest singular value: below what fp32 factors can say

bool can_hold(const Module& module) { return module.kind == Module::Kind::Linear || module.kind == Module::Kind::Head; }
bool named(const Module& module, const std::string& target) {
  return module.name == target || module.name.ends_with("." + target);
}

[[noreturn]] void nothing_matches(const std::string& target, std::span<const Module> modules) {
  std::set<std::string> ends;
  for (const auto& module : modules)
    if (can_hold(module)) ends.insert(module.name.substr(module.name.rfind('.') + 1));
  throw Error(
      fmt::format("adapter lora: target '{}' matches no module of this model; linear modules end in {}, or say "
                  "\"all-linear\"",
                  target, fmt::join(ends, ", ")));
}

void check_target(const std::string& target, std::span<const Module> modules) {
  bool found = false;
  for (const auto& module : modules) {
    if (target == kAllLinear ? module.kind != Module::Kind::Linear : !named(module, target)) continue;
    if (!can_hold(module))
      throw Error(
          fmt::format("adapter lora: target '{}' names '{}', which is an embedding or a norm; only linear modules "
                      "hold a low-rank pair",
                      target, module.name));
    found = true;
  }
  if (!found) nothing_matches(target, modules);
}

std::int64_t whole_rank(double rank, std::int64_t when_zero) {
  if (rank == 0) return when_zero;
  if (rank < 1 || rank != std::floor(rank))
    throw Error(fmt::format("adapter lora: a node's rank is a whole number of at least 1, not {:g}", rank));
  return static_cast<std::int64_t>(rank);
}

}  // namespace

std::vector<std::pair<Module, Lora::Shape>> Lora::chosen(std::span<const Module> modules, double rank) const {
  if (!imported_.empty()) return imported(modules, rank);
  const Shape shape{whole_rank(rank, params_.r), params_.alpha};
  if (params_.targets.empty()) throw Error("adapter lora: targets is empty; name modules or say \"all-linear\"");
  for (const auto& target : params_.targets) check_target(target, modules);
  std::vector<std::pair<Module, Shape>> found;
  for (const auto& module : modules) {
    const bool wanted = std::ranges::any_of(params_.targets, [&](const std::string& target) {
      return target == kAllLinear ? module.kind == Module::Kind::Linear : named(module, target);
    });
    if (!wanted) continue;
    if (shape.rank > std::min(module.in, module.out))
      throw Error(fmt::format("adapter lora: r = {} is more than '{}' can hold, {} x {}: choose at most {}", shape.rank,
                              module.name, module.out, module.in, std::min(module.in, module.out)));
    found.emplace_back(module, shape);
  }
  return found;
}

std::vector<std::pair<Module, Lora::Shape>> Lora::imported(std::span<const Module> modules, double rank) const {
  if (rank != 0)
    throw Error(
        fmt::format("adapter lora: the imported adapter has ranks of its own; a node's rank of {:g} is not "
                    "possible with it",
                    rank));
  std::vector<std::pair<Module, Shape>> found;
  for (const auto& module : modules)
    if (const auto known = imported_.find(module.name); known != imported_.end())
      found.emplace_back(module, known->second);
  if (found.size() != imported_.size())
    throw Error(fmt::format("adapter lora: this model has {} of the {} modules of the imported adapter", found.size(),
                            imported_.size()));
  return found;
}

double Lora::scale(const Shape& shape) const {
  const auto rank = static_cast<double>(shape.rank);
  return shape.alpha / (params_.rslora ? std::sqrt(rank) : rank);
}

Layout Lora::layout(std::span<const Module> modules, double rank) const {
  Layout layout;
  for (const auto& [module, shape] : chosen(modules, rank)) {
    const auto first = static_cast<Index>(layout.tensors.size());
    layout.tensors.push_back({.name = module.name + ".lora_A", .shape = {shape.rank, module.in}});
    layout.tensors.push_back({.name = module.name + ".lora_B", .shape = {module.out, shape.rank}});
    layout.groups.push_back({.kind = "lora", .members = {first, first + 1}, .scale = scale(shape)});
  }
  return layout;
}

void Lora::create(const Model&, std::span<const Module> modules, double rank, std::uint64_t seed) {
  auto generator = nn::make_generator(seed);
  held_.clear();
  for (const auto& [module, shape] : chosen(modules, rank)) {
    // PEFT's Kaiming-uniform with a = sqrt 5; with B = 0 the model starts as its base.
    const double bound = 1 / std::sqrt(static_cast<double>(module.in));
    auto A = at::empty({shape.rank, module.in}, at::kFloat).uniform_(-bound, bound, generator);
    auto B = at::zeros({module.out, shape.rank}, at::kFloat);
    held_.push_back({module, A.requires_grad_(true), B.requires_grad_(true), shape.alpha, {}});
  }
}

at::Tensor Lora::parameter(Index index) {
  if (index >= 2 * held_.size())
    throw Error(fmt::format("adapter lora: no parameter {}; it holds {}", index, 2 * held_.size()));
  return index % 2 == 0 ? held_[index / 2].A : held_[index / 2].B;
}

std::vector<Injection> Lora::injections() {
  std::vector<Injection> all;
  for (const auto& held : held_) {
    const auto own_scale = scale({held.A.size(0), held.alpha});
    all.push_back(
        {held.module.name, LowRank{.A = held.A, .B = held.B, .scale = own_scale, .dropout = params_.dropout}});
    if (!held.side.empty()) all.push_back({held.module.name, held.side.pair()});
  }
  return all;
}

void Lora::receive(Model& model, const Download& download) {
  if (download.channel != kResidual) return Adapter::receive(model, download);
  std::map<std::string_view, Pair> residuals;
  for (const auto& [name, tensor] : download.tensors) {
    const bool right = name.ends_with(kResidualA);
    if (!right && !name.ends_with(kResidualB))
      throw Error(fmt::format("adapter lora: channel '{}' holds '{}', which is no residual factor", kResidual, name));
    auto& pair = residuals[std::string_view(name).substr(0, name.size() - kResidualA.size())];
    (right ? pair.A : pair.B) = tensor;
  }
  if (download.anew)
    for (auto& held : held_) held.side = {};
  for (auto& held : held_) {
    const auto found = residuals.find(held.module.name);
    if (found == residuals.end()) continue;
    const auto& [A, B, alpha] = found->second;
    const bool fits = A.defined() && B.defined() && A.dim() == 2 && B.dim() == 2 && A.size(1) == held.module.in &&
                      B.size(0) == held.module.out && A.size(0) == B.size(1);
    if (!fits) throw Error(fmt::format("adapter lora: the residual factors of '{}' do not fit it", held.module.name));
    held.side.add(B, A);
    residuals.erase(found);
  }
  if (!residuals.empty())
    throw Error(
        fmt::format("adapter lora: a residual for '{}', which holds no low-rank pair", residuals.begin()->first));
}

Pair Lora::exported(const Held& held) const {
  const auto B = held.B.detach().mul(scale({held.A.size(0), held.alpha}));
  factors::Factors whole{B, held.A.detach()};
  if (!held.side.empty()) {
    const auto side = held.side.pair();
    const std::vector<factors::Factors> both{whole, {side.B, side.A}};
    if (held.A.size(0) + side.A.size(0) <= std::min(held.module.in, held.module.out))
      whole = {at::cat({B, side.B}, 1), at::cat({held.A.detach(), side.A}, 0)};
    else
      whole = factors::merge(both, kNothing);
  }
  return {whole.right, whole.left, static_cast<double>(whole.right.size(0))};
}

void Lora::export_to(const Model&, std::span<const Module> modules, const std::string& base,
                     const std::filesystem::path& directory) const {
  if (held_.empty()) throw Error("adapter lora: nothing to export before it is created");
  const bool residuals = std::ranges::any_of(held_, [](const Held& held) { return !held.side.empty(); });
  Saved saved{.dropout = params_.dropout, .rank_stabilised = params_.rslora && !residuals};
  for (const auto& held : held_)
    saved.pairs[held.module.name] = residuals ? exported(held) : Pair{held.A.detach(), held.B.detach(), held.alpha};
  write_peft(saved, modules, base, directory);
}

void Lora::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  auto saved = read_peft(directory, modules);
  params_.dropout = saved.dropout;
  params_.rslora = saved.rank_stabilised;
  imported_.clear();
  held_.clear();
  for (const auto& module : modules) {
    auto found = saved.pairs.find(module.name);
    if (found == saved.pairs.end()) continue;
    auto& [A, B, alpha] = found->second;
    imported_[module.name] = {A.size(0), alpha};
    held_.push_back({module, A.requires_grad_(true), B.requires_grad_(true), alpha, {}});
  }
}

}  // namespace hansa::lora

HANSA_PLUGIN(org_hansa_lora, "0.1.0") {
  using namespace hansa;
  using lora::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<lora::Lora, Params>("lora", "Low-rank pairs beside linear modules; the base stays as it is.")
      .doc(
          "y += scale * B A dropout(x), scale = alpha / r (arXiv 2106.09685), or alpha / sqrt(r) with rslora (arXiv "
          "2312.03732). A rule may add to the frozen weights: channel `residual`. Exports and imports PEFT "
          "directories.")
      .groups("lora")
      .traits(HANSA_TRAIT_RANK_AWARE)
      .param(&Params::targets, "targets", "Ends of module names, such as q_proj or attn.c_proj; or \"all-linear\".",
             list_of(), at_least(1))
      .param(&Params::r, "r", "Rank of each pair.", at_least(1))
      .param(&Params::alpha, "alpha", "Numerator of the scale.", more_than(0))
      .param(&Params::dropout, "dropout", "Chance that an input of a pair is dropped in training.", at_least(0),
             less_than(1))
      .param(&Params::rslora, "rslora", "Divide alpha by the root of r instead of r.");
}
