#include "nn/places.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
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

Places::Places(std::vector<Module> modules, at::Device device) : device_(device) {
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

bool is_linear(const Module& module) {
  return module.kind == Module::Kind::Linear || module.kind == Module::Kind::Head;
}
std::string_view kind_text(const Module& module) {
  switch (module.kind) {
    case Module::Kind::Linear: return "a linear module";
    case Module::Kind::Head: return "a head";
    case Module::Kind::Embedding: return "an embedding";
    case Module::Kind::Norm: return "a norm";
    case Module::Kind::Attention: return "an attention layer";
  }
  return "?";
}
[[noreturn]] void does_not_take(const Module& module, std::string_view what, std::string_view hint) {
  throw Error(
      fmt::format("injection into '{}': it is {}, which takes no {}. {}", module.name, kind_text(module), what, hint));
}

void check(const Module& module, const LowRank& pair) {
  if (!is_linear(module)) does_not_take(module, "low-rank pair", "Choose linear modules as targets");
  expect(module, "A", pair.A, {pair.A.defined() && pair.A.dim() == 2 ? pair.A.size(0) : 1, module.in});
  const auto rank = pair.A.size(0);
  expect(module, "B", pair.B, {module.out, rank});
  if (pair.inner.defined() != pair.outer.defined())
    throw Error(fmt::format("injection into '{}': of inner and outer one is missing", module.name));
  if (pair.inner.defined()) {
    expect(module, "inner", pair.inner, {rank});
    expect(module, "outer", pair.outer, {module.out});
    if (pair.magnitude.defined())
      throw Error(
          fmt::format("injection into '{}': a pair has inner and outer, or a magnitude, not both", module.name));
  }
  if (pair.magnitude.defined()) expect(module, "magnitude", pair.magnitude, {module.out});
}
void check(const Module& module, const Replace& replace) {
  if (module.kind == Module::Kind::Attention) does_not_take(module, "weight", "Name the linear modules inside it");
  if (replace.weight.defined()) expect(module, "weight", replace.weight, weight_shape(module));
  if (replace.bias.defined() && module.bias) expect(module, "bias", replace.bias, {module.out});
  if (!replace.weight.defined() && !replace.bias.defined())
    throw Error(fmt::format("injection into '{}': neither a weight nor a bias to replace", module.name));
  if (!module.bias && replace.bias.defined())
    throw Error(fmt::format("injection into '{}': the module has no bias to replace", module.name));
}
void check(const Module& module, const Rescale& rescale) {
  if (!is_linear(module)) does_not_take(module, "rescaling", "Choose linear modules as targets");
  expect(module, "by", rescale.by, {rescale.of == Rescale::Of::Input ? module.in : module.out});
}
void check(const Module& module, const Bottleneck& bottleneck) {
  if (module.kind != Module::Kind::Linear)
    does_not_take(module, "bottleneck", "Choose linear modules of the blocks as targets");
  const auto& down = bottleneck.down;
  expect(module, "down", down, {down.defined() && down.dim() == 2 ? down.size(0) : 1, module.out});
  const auto rank = down.size(0);
  expect(module, "down_bias", bottleneck.down_bias, {rank});
  expect(module, "up", bottleneck.up, {module.out, rank});
  expect(module, "up_bias", bottleneck.up_bias, {module.out});
}
void check(const Module& module, const Prompt& prompt) {
  expect(module, "rows", prompt.rows,
         {prompt.rows.defined() && prompt.rows.dim() == 2 ? prompt.rows.size(0) : 1, module.out});
}
void check(const Module& module, const Prefix& prefix) {
  if (module.kind != Module::Kind::Attention) does_not_take(module, "prefix", "Choose attention layers");
  const auto count = prefix.keys.defined() && prefix.keys.dim() == 3 ? prefix.keys.size(0) : 1;
  expect(module, "keys", prefix.keys, {count, module.in, module.out});
  expect(module, "values", prefix.values, {count, module.in, module.out});
}

// A second low-rank pair of a module.
void check_further(const Module& module, const LowRank& pair) {
  if (pair.A.requires_grad() || pair.B.requires_grad())
    throw Error(fmt::format("two injections into '{}' train: pairs after the first must be fixed", module.name));
  if (pair.dropout != 0) throw Error(fmt::format("injection into '{}': a fixed pair takes no dropout", module.name));
  if (pair.inner.defined() || pair.magnitude.defined())
    throw Error(fmt::format("injection into '{}': a fixed pair is a plain one", module.name));
}

template <class What>
void put(const Module& module, std::optional<What>& where, const What& what) {
  if (where)
    throw Error(
        fmt::format("two injections of one kind into '{}': only low-rank pairs may share a module", module.name));
  where = what;
}
void put(const Module& module, Injected& all, const LowRank& pair) {
  if (!all.low_rank) {
    all.low_rank = pair;
    return;
  }
  check_further(module, pair);
  all.fixed.push_back(pair);
}
void put(const Module& module, Injected& all, const Replace& what) { put(module, all.replace, what); }
void put(const Module& module, Injected& all, const Rescale& what) { put(module, all.rescale, what); }
void put(const Module& module, Injected& all, const Bottleneck& what) { put(module, all.bottleneck, what); }
void put(const Module& module, Injected& all, const Prompt& what) { put(module, all.prompt, what); }
void put(const Module& module, Injected& all, const Prefix& what) { put(module, all.prefix, what); }

template <class What>
void refuse_quantised(const Place&, const What&) {}
void refuse_quantised(const Place& place, const Replace& replace) {
  if (place.stored.defined() && replace.weight.defined())
    throw Error(
        fmt::format("injection into '{}': its weight is held quantised (base_dtype), so it cannot be trained "
                    "itself. Train something beside it, such as low-rank pairs, or hold the base with "
                    "base_dtype = \"compute\"",
                    place.module.name));
}

// The rows of one forward pass have one length, so all that stands before them must agree.
void check_virtual_tokens(const std::map<std::string_view, Injected>& all) {
  std::string_view first;
  std::int64_t count = 0;
  for (const auto& [module, injected] : all) {
    if (!injected.prompt && !injected.prefix) continue;
    const auto own = injected.prompt ? injected.prompt->rows.size(0) : injected.prefix->keys.size(0);
    if (first.empty()) {
      first = module;
      count = own;
      continue;
    }
    if (injected.prompt || all.at(first).prompt)
      throw Error(
          fmt::format("injections into '{}' and '{}': a model takes a prompt or prefixes, not both", first, module));
    if (own != count)
      throw Error(fmt::format("injection into '{}': a prefix of {} where that of '{}' has {}; all must be as long",
                              module, own, first, count));
  }
}

// And in all layers: one without a prefix would see fewer keys than the others.
void check_prefixes(std::span<const Place> places, const std::map<std::string_view, Injected>& all) {
  const Place *with = nullptr, *without = nullptr;
  for (const auto& place : places) {
    if (place.module.kind != Module::Kind::Attention) continue;
    const auto found = all.find(place.module.name);
    (found != all.end() && found->second.prefix ? with : without) = &place;
  }
  if (with && without)
    throw Error(
        fmt::format("injection into '{}': it has a prefix and '{}' has none; all attention layers have one, or none",
                    with->module.name, without->module.name));
}

at::Tensor wide(const at::Tensor& tensor) { return tensor.detach().to(at::kCPU, at::kFloat); }

// In place, so that whoever holds the tensor sees it there.
void bring(const at::Tensor& tensor, at::Device device) {
  if (tensor.defined() && tensor.device() != device) tensor.set_data(tensor.detach().to(device));
}
void bring(const LowRank& what, at::Device device) {
  for (const auto* one : {&what.A, &what.B, &what.inner, &what.outer, &what.magnitude}) bring(*one, device);
}
void bring(const Replace& what, at::Device device) {
  bring(what.weight, device);
  bring(what.bias, device);
}
void bring(const Rescale& what, at::Device device) { bring(what.by, device); }
void bring(const Bottleneck& what, at::Device device) {
  for (const auto* one : {&what.down, &what.down_bias, &what.up, &what.up_bias}) bring(*one, device);
}
void bring(const Prompt& what, at::Device device) { bring(what.rows, device); }
void bring(const Prefix& what, at::Device device) {
  bring(what.keys, device);
  bring(what.values, device);
}

[[noreturn]] void cannot_fold(const Place& place, std::string_view what) {
  throw Error(
      fmt::format("'{}' has a {}, which no weight of a checkpoint can stand for: it cannot be merged. Export the "
                  "adapter by itself",
                  place.module.name, what));
}

}  // namespace

void Places::inject(std::span<const Injection> injections) {
  std::map<std::string_view, Injected> all;
  for (const auto& injection : injections) {
    const auto& place = at(injection.module);
    const auto& module = place.module;
    if (std::holds_alternative<Prompt>(injection.what) && module.name != prompt_module_)
      does_not_take(module, "soft prompt",
                    prompt_module_.empty() ? "No module of this model does" : fmt::format("'{}' does", prompt_module_));
    std::visit(
        [&](const auto& what) {
          check(module, what);
          refuse_quantised(place, what);
          put(module, all[module.name], what);
        },
        injection.what);
  }
  check_virtual_tokens(all);
  check_prefixes(places_, all);
  for (const auto& injection : injections) std::visit([&](const auto& what) { bring(what, device_); }, injection.what);
  for (auto& place : places_) place.injected = {};
  for (auto& [module, injected] : all) at(module).injected = std::move(injected);
}

std::int64_t Places::virtual_tokens() const {
  for (const auto& place : places_) {
    if (place.injected.prompt) return place.injected.prompt->rows.size(0);
    if (place.injected.prefix) return place.injected.prefix->keys.size(0);
  }
  return 0;
}

void Places::require_foldable(const Place& place) {
  if (place.injected.bottleneck) cannot_fold(place, "bottleneck");
  if (place.injected.prompt) cannot_fold(place, "soft prompt");
  if (place.injected.prefix) cannot_fold(place, "prefix");
}

std::pair<at::Tensor, at::Tensor> Places::folded(const Place& place, const at::Tensor& base_weight,
                                                 const at::Tensor& base_bias) {
  at::NoGradGuard no_grad;
  const auto& in = place.injected;
  require_foldable(place);
  auto weight = in.replace && in.replace->weight.defined() ? wide(in.replace->weight) : base_weight;
  auto bias = in.replace && in.replace->bias.defined() ? wide(in.replace->bias) : base_bias;
  if (const auto& pair = in.low_rank) {
    auto B = wide(pair->B), A = wide(pair->A);
    if (pair->inner.defined()) {
      B = B * wide(pair->outer).unsqueeze(1);
      A = A * wide(pair->inner).unsqueeze(1);
    }
    weight = weight + at::mm(B, A) * pair->scale;
    for (const auto& side : in.fixed) weight.addmm_(wide(side.B), wide(side.A), 1, side.scale);
    if (pair->magnitude.defined())
      weight = weight * (wide(pair->magnitude) / at::linalg_vector_norm(weight, 2, 1)).unsqueeze(1);
  }
  if (const auto& rescale = in.rescale) {
    const auto by = wide(rescale->by);
    const bool output = rescale->of == Rescale::Of::Output;
    weight = output ? weight * by.unsqueeze(1) : weight * by;
    if (output && bias.defined()) bias = bias * by;
  }
  return {weight, bias};
}

}  // namespace hansa::nn
