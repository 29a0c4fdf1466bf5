#include "full.hpp"

#include <set>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hansa/plugin.hpp>
#include <hf/checkpoint_writer.hpp>
#include <hf/tensors.hpp>

#include "base/error.hpp"

namespace hansa::full {

namespace {

bool has_weights(const Module& module) { return module.kind != Module::Kind::Attention; }

std::vector<std::int64_t> shape_of(const Module& module) {
  if (module.kind == Module::Kind::Norm) return {module.out};
  if (module.kind == Module::Kind::Embedding) return {module.in, module.out};
  return {module.out, module.in};
}

at::Tensor stored_form(const Module& module, const at::Tensor& weight) {
  return module.stored_transposed ? weight.t().contiguous() : weight;
}

void refuse_rank(double rank) {
  if (rank != 0) throw Error(fmt::format("adapter full: a node asks for rank {:g}, but whole weights have none", rank));
}

}  // namespace

Layout Full::layout(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);
  Layout layout;
  auto add = [&](std::string name, std::vector<std::int64_t> shape) {
    layout.groups.push_back({.members = {static_cast<Index>(layout.tensors.size())}});
    layout.tensors.push_back({.name = std::move(name), .shape = std::move(shape)});
  };
  for (const auto& module : modules) {
    if (!has_weights(module)) continue;
    add(module.name + ".weight", shape_of(module));
    if (module.bias) add(module.name + ".bias", {module.out});
  }
  if (layout.tensors.empty()) throw Error("adapter full: the model has no module to train");
  return layout;
}

void Full::take(const Module& module, at::Tensor weight, at::Tensor bias) {
  modules_.push_back(module);
  // Copies: what the model gives may be shared with it, and training writes here.
  tensors_.push_back(weight.detach().clone().requires_grad_(true));
  if (module.bias) tensors_.push_back(bias.detach().clone().requires_grad_(true));
}

void Full::create(const Model& model, std::span<const Module> modules, double rank, std::uint64_t) {
  refuse_rank(rank);
  modules_.clear();
  tensors_.clear();
  for (const auto& module : modules) {
    if (!has_weights(module)) continue;
    auto [weight, bias] = model.base(module.name);
    take(module, weight, bias);
  }
}

at::Tensor Full::parameter(Index index) {
  if (index >= tensors_.size())
    throw Error(fmt::format("adapter full: no parameter {}; it holds {}", index, tensors_.size()));
  return tensors_[index];
}

std::vector<Injection> Full::injections() {
  std::vector<Injection> all;
  std::size_t next = 0;
  for (const auto& module : modules_) {
    Replace replace{.weight = tensors_[next++]};
    if (module.bias) replace.bias = tensors_[next++];
    all.push_back({module.name, std::move(replace)});
  }
  return all;
}

void Full::export_to(const Model&, std::span<const Module>, const std::string& base,
                     const std::filesystem::path& directory) const {
  if (tensors_.empty()) throw Error("adapter full: nothing to export before it is created");
  std::vector<std::pair<std::string, at::Tensor>> stored;
  std::size_t next = 0;
  for (const auto& module : modules_) {
    stored.emplace_back(module.name + ".weight", stored_form(module, tensors_[next++].detach()));
    if (module.bias) stored.emplace_back(module.name + ".bias", tensors_[next++].detach());
  }
  hf::write_checkpoint(directory, base, stored);
}

bool Full::recognises(const std::filesystem::path& directory) const {
  return std::filesystem::exists(directory / "config.json") &&
         !std::filesystem::exists(directory / "adapter_config.json") &&
         (std::filesystem::exists(directory / "model.safetensors") ||
          std::filesystem::exists(directory / "model.safetensors.index.json"));
}

void Full::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  const hf::Checkpoint checkpoint(directory);
  modules_.clear();
  tensors_.clear();
  auto load = [&](const std::string& name, std::vector<std::int64_t> shape) {
    const auto& stored = checkpoint.at(name);
    if (stored.shape != shape)
      throw Error(fmt::format("{}: tensor '{}' is {}, but this model makes it {}", directory.string(), name,
                              fmt::join(stored.shape, " x "), fmt::join(shape, " x ")));
    return hf::load_tensor(stored, DType::f32);
  };
  for (const auto& module : modules) {
    if (!has_weights(module)) continue;
    auto shape = shape_of(module);
    if (module.stored_transposed) std::swap(shape[0], shape[1]);
    const auto weight = stored_form(module, load(module.name + ".weight", shape));
    take(module, weight, module.bias ? load(module.name + ".bias", {module.out}) : at::Tensor());
  }
}

}  // namespace hansa::full

HANSA_PLUGIN(org_hansa_full, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<hansa::full::Full, hansa::NoParams>("full", "All parameters train, starting at the base's values.")
      .doc(
          "Exports a full Transformers checkpoint in fp32. The optimiser's state and the update are as large as the "
          "model.");
}
