#include "lora.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hansa/plugin.hpp>
#include <nn/dropout.hpp>

#include "base/error.hpp"

namespace hansa::lora {

namespace {

constexpr std::string_view kAllLinear = "all-linear";

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

}  // namespace

std::vector<Module> Lora::chosen(std::span<const Module> modules) const {
  const auto& targets = imported_.empty() ? params_.targets : imported_;
  if (targets.empty()) throw Error("adapter lora: targets is empty; name modules or say \"all-linear\"");
  for (const auto& target : targets) check_target(target, modules);
  std::vector<Module> found;
  for (const auto& module : modules) {
    const bool wanted = std::ranges::any_of(targets, [&](const std::string& target) {
      return target == kAllLinear ? module.kind == Module::Kind::Linear : named(module, target);
    });
    if (!wanted) continue;
    if (params_.r > std::min(module.in, module.out))
      throw Error(fmt::format("adapter lora: r = {} is more than '{}' can hold, {} x {}: choose at most {}", params_.r,
                              module.name, module.out, module.in, std::min(module.in, module.out)));
    found.push_back(module);
  }
  return found;
}

double Lora::scale() const {
  const auto rank = static_cast<double>(params_.r);
  return params_.alpha / (params_.rslora ? std::sqrt(rank) : rank);
}

Layout Lora::layout(std::span<const Module> modules) const {
  Layout layout;
  for (const auto& module : chosen(modules)) {
    const auto first = static_cast<Index>(layout.tensors.size());
    layout.tensors.push_back({.name = module.name + ".lora_A", .shape = {params_.r, module.in}});
    layout.tensors.push_back({.name = module.name + ".lora_B", .shape = {module.out, params_.r}});
    layout.groups.push_back({.kind = "lora", .members = {first, first + 1}, .scale = scale()});
  }
  return layout;
}

void Lora::create(const Model&, std::span<const Module> modules, std::uint64_t seed) {
  auto generator = nn::make_generator(seed);
  held_.clear();
  for (const auto& module : chosen(modules)) {
    // PEFT's Kaiming-uniform with a = sqrt 5; with B = 0 the model starts as its base.
    const double bound = 1 / std::sqrt(static_cast<double>(module.in));
    auto A = at::empty({params_.r, module.in}, at::kFloat).uniform_(-bound, bound, generator);
    auto B = at::zeros({module.out, params_.r}, at::kFloat);
    held_.push_back({module, A.requires_grad_(true), B.requires_grad_(true)});
  }
}

at::Tensor Lora::parameter(Index index) {
  if (index >= 2 * held_.size())
    throw Error(fmt::format("adapter lora: no parameter {}; it holds {}", index, 2 * held_.size()));
  return index % 2 == 0 ? held_[index / 2].A : held_[index / 2].B;
}

std::vector<Injection> Lora::injections() {
  std::vector<Injection> all;
  for (const auto& held : held_)
    all.push_back({held.module.name, LowRank{.A = held.A, .B = held.B, .scale = scale(), .dropout = params_.dropout}});
  return all;
}

void Lora::export_to(const Model&, std::span<const Module> modules, const std::string& base,
                     const std::filesystem::path& directory) const {
  if (held_.empty()) throw Error("adapter lora: nothing to export before it is created");
  Saved saved{.rank = params_.r, .alpha = params_.alpha, .dropout = params_.dropout, .rank_stabilised = params_.rslora};
  for (const auto& held : held_) saved.pairs[held.module.name] = {held.A, held.B};
  write_peft(saved, modules, base, directory);
}

void Lora::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  auto saved = read_peft(directory, modules);
  params_.r = saved.rank;
  params_.alpha = saved.alpha;
  params_.dropout = saved.dropout;
  params_.rslora = saved.rank_stabilised;
  imported_.clear();
  held_.clear();
  for (const auto& module : modules) {
    auto found = saved.pairs.find(module.name);
    if (found == saved.pairs.end()) continue;
    imported_.push_back(module.name);
    held_.push_back({module, found->second.A.requires_grad_(true), found->second.B.requires_grad_(true)});
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
          "2312.03732). Exports and imports PEFT directories.")
      .param(&Params::targets, "targets", "Ends of module names, such as q_proj or attn.c_proj; or \"all-linear\".",
             list_of(), at_least(1))
      .param(&Params::r, "r", "Rank of each pair.", at_least(1))
      .param(&Params::alpha, "alpha", "Numerator of the scale.", more_than(0))
      .param(&Params::dropout, "dropout", "Chance that an input of a pair is dropped in training.", at_least(0),
             less_than(1))
      .param(&Params::rslora, "rslora", "Divide alpha by the root of r instead of r.");
}
