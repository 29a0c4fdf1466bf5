#include "adapters/module_adapter.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nn/dropout.hpp>

#include "base/error.hpp"

namespace hansa::adapters {

namespace {

constexpr std::string_view kWeight = "weight", kBias = "bias";

at::Tensor leaf(const at::Tensor& value) { return value.detach().to(at::kFloat).clone().requires_grad_(true); }

}  // namespace

std::vector<std::int64_t> shape_of(const Module& module) {
  if (module.kind == Module::Kind::Norm) return {module.out};
  if (module.kind == Module::Kind::Embedding) return {module.in, module.out};
  return {module.out, module.in};
}
bool holds_tensors(const Module& module) { return module.kind != Module::Kind::Attention; }

Part ModuleAdapter::whole(const Module& module) {
  Part part{.module = module, .tensors = {spec(module, kWeight, shape_of(module))}, .whole = true};
  if (module.bias) part.tensors.push_back(spec(module, kBias, {module.out}));
  return part;
}

TensorSpec ModuleAdapter::spec(const Module& module, std::string_view end, std::vector<std::int64_t> shape) {
  return {.name = fmt::format("{}.{}", module.name, end), .shape = std::move(shape)};
}

void ModuleAdapter::refuse_rank(double rank) const {
  if (rank != 0) throw Error(fmt::format("{}: a node asks for rank {:g}, but this adapter has none", who(), rank));
}

std::vector<Part> ModuleAdapter::all_parts(std::span<const Module> modules, double rank) const {
  if (imported_) {
    if (rank != 0)
      throw Error(
          fmt::format("{}: the imported adapter has shapes of its own; a node's rank of {:g} is not possible "
                      "with it",
                      who(), rank));
    std::vector<Part> all;
    std::size_t there = 0;
    for (const auto& one : held_) {
      all.push_back(one.part);
      there += std::ranges::any_of(modules, [&](const Module& m) { return m.name == one.part.module.name; }) ? 1 : 0;
    }
    if (there != all.size())
      throw Error(
          fmt::format("{}: this model has {} of the {} modules of the imported adapter", who(), there, all.size()));
    return all;
  }
  auto all = parts(modules, rank);
  if (modules_to_save_.empty()) return all;
  const auto name = who() + ", modules_to_save";
  const Wanted wanted{.adapter = name, .what = "modules", .fits = holds_tensors};
  for (const auto& module : choose(wanted, {.targets = modules_to_save_}, modules)) {
    if (std::ranges::any_of(all, [&](const Part& part) { return part.module.name == module.name; }))
      throw Error(fmt::format("{}: '{}' is among the targets and in modules_to_save; it can be one of them", who(),
                              module.name));
    all.push_back(whole(module));
  }
  return all;
}

Layout ModuleAdapter::layout(std::span<const Module> modules, double rank) const {
  Layout layout;
  for (const auto& part : all_parts(modules, rank)) {
    const auto first = static_cast<Index>(layout.tensors.size());
    Group together{.kind = part.group, .members = {}, .scale = part.scale};
    for (Index i = 0; i < part.tensors.size(); ++i) {
      layout.tensors.push_back(part.tensors[i]);
      if (part.group.empty())
        layout.groups.push_back({.kind = "", .members = {first + i}, .scale = 1});
      else
        together.members.push_back(first + i);
    }
    if (!part.group.empty()) layout.groups.push_back(std::move(together));
  }
  if (layout.tensors.empty()) throw Error(fmt::format("{}: the model has no module to train", who()));
  return layout;
}

void ModuleAdapter::create(const Model& model, std::span<const Module> modules, double rank, std::uint64_t seed) {
  imported_ = false;
  const auto all = all_parts(modules, rank);
  held_.clear();
  begin(model, all, seed);
  auto generator = nn::make_generator(seed);
  for (const auto& part : all) {
    Held one{part, {}};
    const auto made = part.whole ? ModuleAdapter::fresh(model, part, generator) : fresh(model, part, generator);
    for (const auto& tensor : made) one.tensors.push_back(leaf(tensor));
    held_.push_back(std::move(one));
  }
}

ModuleAdapter::Tensors ModuleAdapter::fresh(const Model& model, const Part& part, at::Generator&) {
  const auto [weight, bias] = model.base(part.module.name);
  return part.module.bias ? Tensors{weight, bias} : Tensors{weight};
}

void ModuleAdapter::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  Replace replace{.weight = tensors[0], .bias = part.module.bias ? tensors[1] : at::Tensor()};
  all.push_back({part.module.name, std::move(replace)});
}

at::Tensor ModuleAdapter::parameter(Index index) {
  std::size_t count = 0;
  for (auto& one : held_) {
    if (index < count + one.tensors.size()) return one.tensors[index - count];
    count += one.tensors.size();
  }
  throw Error(fmt::format("{}: no parameter {}; it holds {}", who(), index, count));
}

double ModuleAdapter::rate(Index index) const {
  for (const auto& one : held_) {
    if (index < one.part.tensors.size()) return one.part.whole ? 1 : rate_of(one.part.tensors[index]);
    index -= static_cast<Index>(one.part.tensors.size());
  }
  return 1;
}

std::vector<Injection> ModuleAdapter::injections() {
  std::vector<Injection> all;
  for (const auto& one : held_) {
    if (one.part.whole)
      ModuleAdapter::inject(one.part, one.tensors, all);
    else
      inject(one.part, one.tensors, all);
  }
  return all;
}

void ModuleAdapter::require_created() const {
  if (held_.empty()) throw Error(fmt::format("{}: nothing to export before it is created", who()));
}

std::vector<Whole> ModuleAdapter::wholes() const {
  std::vector<Whole> all;
  for (const auto& one : held_)
    if (one.part.whole)
      all.push_back({one.part.module, one.tensors[0], one.part.module.bias ? one.tensors[1] : at::Tensor()});
  return all;
}

void ModuleAdapter::adopt(std::vector<Held> held, const std::vector<Whole>& trained) {
  held_ = std::move(held);
  for (const auto& one : trained) {
    held_.push_back({whole(one.module), {one.weight}});
    if (one.module.bias) held_.back().tensors.push_back(one.bias);
  }
  for (auto& one : held_)
    for (auto& tensor : one.tensors) tensor = leaf(tensor);
  imported_ = true;
}

// ---- our own format

void ModuleAdapter::export_to(const Model&, std::span<const Module>, const std::string& base,
                              const std::filesystem::path& directory) const {
  require_created();
  Own own{.settings = settings(), .tensors = {}};
  for (const auto& one : held_)
    for (std::size_t i = 0; i < one.tensors.size(); ++i)
      own.tensors.emplace_back(one.part.tensors[i].name, one.tensors[i].detach().contiguous());
  write_own(directory, name_, base, own);
}

bool ModuleAdapter::recognises(const std::filesystem::path& directory) const {
  return own_adapter_of(directory) == name_;
}

void ModuleAdapter::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  const auto own = read_own(directory, name_);
  std::map<std::string, at::Tensor, std::less<>> stored(own.tensors.begin(), own.tensors.end());
  const auto take = [&](const Module& module, std::string_view end, Held& into) {
    const auto found = stored.find(fmt::format("{}.{}", module.name, end));
    if (found == stored.end()) return;
    into.part.tensors.push_back(spec(module, end, found->second.sizes().vec()));
    into.tensors.push_back(found->second);
    stored.erase(found);
  };
  std::vector<Held> parts;
  std::vector<Whole> trained;
  for (const auto& module : modules) {
    if (stored.contains(fmt::format("{}.{}", module.name, kWeight))) {
      Held all{{.module = module}, {}};
      take(module, kWeight, all);
      if (module.bias) take(module, kBias, all);
      if (all.part.tensors != whole(module).tensors)
        throw Error(
            fmt::format("{}: the tensors of '{}' are not those of this model's", directory.string(), module.name));
      trained.push_back({module, all.tensors[0], module.bias ? all.tensors[1] : at::Tensor()});
      continue;
    }
    Held one{{.module = module}, {}};
    for (const auto& end : ends()) take(module, end, one);
    if (one.tensors.empty()) continue;
    if (one.tensors.size() != ends().size())
      throw Error(fmt::format("{}: of '{}' there are {} tensors, it must be {} ({})", directory.string(), module.name,
                              one.tensors.size(), ends().size(), fmt::join(ends(), ", ")));
    check_stored(directory, one.part);
    parts.push_back(std::move(one));
  }
  if (!stored.empty())
    throw Error(
        fmt::format("{}: tensor '{}' belongs to no module of this model", directory.string(), stored.begin()->first));
  if (parts.empty() && trained.empty()) throw Error(fmt::format("{}: holds no tensor", directory.string()));
  restore(own.settings);
  adopt(std::move(parts), trained);
}

}  // namespace hansa::adapters
