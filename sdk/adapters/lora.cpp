#include "adapters/lora.hpp"

#include <algorithm>
#include <cmath>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <factors/factors.hpp>
#include <nn/dropout.hpp>

#include "adapters/principal.hpp"
#include "base/error.hpp"

namespace hansa::adapters {

namespace {

constexpr std::string_view kA = "lora_A", kB = "lora_B", kMagnitude = "lora_magnitude_vector";
constexpr std::string_view kResidual = "residual", kResidualA = ".residual_A", kResidualB = ".residual_B";
constexpr double kNothing = 1e-8;  // of the largest singular value: below what fp32 factors can say

std::int64_t whole_rank(const std::string& who, double rank) {
  if (rank < 1 || rank != std::floor(rank))
    throw Error(fmt::format("{}: a node's rank is a whole number of at least 1, not {:g}", who, rank));
  return static_cast<std::int64_t>(rank);
}

at::Tensor normal(at::IntArrayRef shape, double deviation, at::Generator& generator) {
  return at::empty(shape, at::kFloat).normal_(0, deviation, generator);
}

// Rows of an orthogonal matrix, every second for A and the others for B: B A = 0 though neither is.
std::pair<at::Tensor, at::Tensor> orthogonal_pair(const Module& module, std::int64_t rank, at::Generator& generator) {
  const auto whole = std::get<0>(at::linalg_qr(normal({rank, rank}, 1, generator)));
  const auto pairs = whole.view({rank / 2, 2, rank});
  const auto right = normal({rank / 2, module.in}, 0.1, generator),
             left = normal({module.out, rank / 2}, 0.1, generator);
  return {at::mm(pairs.select(1, 0).t(), right), at::mm(left, pairs.select(1, 1))};
}

}  // namespace

double Lora::scale(std::int64_t rank, double alpha) const {
  const auto r = static_cast<double>(rank);
  return alpha / (params_.rslora ? std::sqrt(r) : r);
}

Part Lora::part_for(const Module& module, std::int64_t rank, double alpha) const {
  Part part{.module = module, .tensors = {}};
  if (form_ != PairForm::FixedA) part.tensors.push_back(spec(module, kA, {rank, module.in}));
  part.tensors.push_back(spec(module, kB, {module.out, rank}));
  if (form_ == PairForm::Dora) part.tensors.push_back(spec(module, kMagnitude, {module.out}));
  if (form_ == PairForm::FixedA) return part;  // B alone: its mean is exact, no rule has to know the pair
  part.group = form_ == PairForm::Dora ? "dora" : "lora";
  part.scale = scale(rank, alpha);
  return part;
}

void Lora::check_patterns(const std::vector<Module>& chosen) const {
  for (const auto& own : params_.patterns) {
    const bool used = std::ranges::any_of(chosen, [&](const Module& m) { return ends_like(m.name, own.target); });
    if (!used)
      throw Error(fmt::format("{}: patterns names '{}', which is none of the chosen modules; the first of them is '{}'",
                              who(), own.target, chosen.front().name));
  }
}

std::vector<Part> Lora::parts(std::span<const Module> modules, double node_rank) const {
  const auto name = who();
  const Wanted wanted{
      .adapter = name, .what = "linear modules", .fits = is_linear_or_head, .all = "all-linear", .of_all = is_linear};
  const auto chosen = choose(wanted, {params_.targets, params_.blocks}, modules);
  check_patterns(chosen);
  std::vector<Part> all;
  for (const auto& module : chosen) {
    auto rank = node_rank == 0 ? params_.r : whole_rank(name, node_rank);
    for (const auto& own : params_.patterns)
      if (node_rank == 0 && own.r && ends_like(module.name, own.target)) rank = *own.r;
    if (rank > std::min(module.in, module.out))
      throw Error(fmt::format("{}: r = {} is more than '{}' can hold, {} x {}: choose at most {}", name, rank,
                              module.name, module.out, module.in, std::min(module.in, module.out)));
    if (params_.start == PairStart::Orthogonal && rank % 2 != 0)
      throw Error(fmt::format("{}: init = \"orthogonal\" shares the rank between A and B, so it must be even, not {}",
                              name, rank));
    all.push_back(part_for(module, rank, alpha_of(module.name)));
  }
  return all;
}

double Lora::alpha_of(const std::string& module) const {
  for (const auto& own : params_.patterns)
    if (own.alpha && ends_like(module, own.target)) return *own.alpha;
  return value_for(alphas_, module, params_.alpha);
}

void Lora::begin(const Model& model, const std::vector<Part>& all, std::uint64_t seed) {
  fixed_.clear();
  alphas_.clear();
  auto generator = nn::make_generator(seed);
  for (const auto& part : all) {
    if (part.whole) continue;
    const auto rank = part.tensors[0].shape[form_ == PairForm::FixedA ? 1 : 0];
    auto& fixed = fixed_[part.module.name];
    if (form_ == PairForm::FixedA) {
      const double bound = 1 / std::sqrt(static_cast<double>(part.module.in));
      fixed.A = at::empty({rank, part.module.in}, at::kFloat).uniform_(-bound, bound, generator);
    } else if (params_.start == PairStart::Pissa) {
      auto [B, A] = principal_factors(model.base(part.module.name).first, rank, seed);
      const double share = 1 / std::sqrt(part.scale);  // scale * B A is the largest part
      fixed = {A.mul_(share), B.mul_(share)};
    }
  }
  start_sides();
}

// What Pissa's pairs start as is taken out of the frozen weights.
void Lora::start_sides() {
  sides_.clear();
  if (params_.start != PairStart::Pissa) return;
  for (const auto& [module, pair] : fixed_)
    sides_[module].add(pair.B * -scale(pair.A.size(0), alpha_of(module)), pair.A);
}

ModuleAdapter::Tensors Lora::fresh(const Model& model, const Part& part, at::Generator& generator) {
  const auto& module = part.module;
  if (form_ == PairForm::FixedA) return {at::zeros(part.tensors[0].shape, at::kFloat)};
  const auto rank = part.tensors[0].shape[0];
  Tensors made;
  if (params_.start == PairStart::Pissa) {
    made = {fixed_.at(module.name).A, fixed_.at(module.name).B};
  } else if (params_.start == PairStart::Orthogonal) {
    const auto [A, B] = orthogonal_pair(module, rank, generator);
    made = {A, B};
  } else {
    // PEFT's Kaiming-uniform with a = sqrt 5; with B = 0 the model starts as its base.
    const double bound = 1 / std::sqrt(static_cast<double>(module.in));
    made = {at::empty({rank, module.in}, at::kFloat).uniform_(-bound, bound, generator),
            at::zeros({module.out, rank}, at::kFloat)};
  }
  if (form_ == PairForm::Dora) made.push_back(at::linalg_vector_norm(model.base(module.name).first, 2, 1));
  return made;
}

Lora::Pair Lora::pair_of(const Part& part, const Tensors& tensors) const {
  if (form_ == PairForm::FixedA) return {fixed_.at(part.module.name).A, tensors[0]};
  return {tensors[0], tensors[1]};
}

void Lora::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  const auto& module = part.module.name;
  const auto [A, B] = pair_of(part, tensors);
  LowRank pair{.A = A, .B = B, .scale = scale(A.size(0), alpha_of(module)), .dropout = params_.dropout};
  if (form_ == PairForm::Dora) pair.magnitude = tensors[2];
  all.push_back({module, std::move(pair)});
  if (const auto side = sides_.find(module); side != sides_.end() && !side->second.empty())
    all.push_back({module, side->second.pair()});
}

double Lora::rate_of(const TensorSpec& tensor) const { return tensor.name.ends_with(kB) ? params_.b_rate : 1; }

void Lora::receive(Model& model, const Download& download) {
  if (download.channel != kResidual) return Adapter::receive(model, download);
  std::map<std::string, Pair> residuals;
  for (const auto& [name, tensor] : download.tensors) {
    const bool right = name.ends_with(kResidualA);
    if (!right && !name.ends_with(kResidualB))
      throw Error(fmt::format("{}: channel '{}' holds '{}', which is no residual factor", who(), kResidual, name));
    auto& pair = residuals[name.substr(0, name.size() - kResidualA.size())];
    (right ? pair.A : pair.B) = tensor;
  }
  if (download.anew) start_sides();
  for (const auto& one : held()) {
    const auto& module = one.part.module;
    const auto found = residuals.find(module.name);
    if (one.part.whole || found == residuals.end()) continue;
    const auto& [A, B] = found->second;
    const bool fits = A.defined() && B.defined() && A.dim() == 2 && B.dim() == 2 && A.size(1) == module.in &&
                      B.size(0) == module.out && A.size(0) == B.size(1);
    if (!fits) throw Error(fmt::format("{}: the residual factors of '{}' do not fit it", who(), module.name));
    sides_[module.name].add(B, A);
    residuals.erase(found);
  }
  if (!residuals.empty())
    throw Error(fmt::format("{}: a residual for '{}', which holds no low-rank pair", who(), residuals.begin()->first));
}

// ---- PEFT

Lora::Pair Lora::whole_pair(const Part& part, const Tensors& tensors) const {
  const auto [trained_A, trained_B] = pair_of(part, tensors);
  const auto A = trained_A.detach().to(at::kCPU);
  const auto B = trained_B.detach().to(at::kCPU).mul(scale(A.size(0), alpha_of(part.module.name)));
  const auto side = sides_.find(part.module.name);
  if (side == sides_.end() || side->second.empty()) return {A, B};
  auto more = side->second.pair();
  more.A = more.A.to(at::kCPU);
  more.B = more.B.to(at::kCPU);
  if (A.size(0) + more.A.size(0) <= std::min(part.module.in, part.module.out))
    return {at::cat({A, more.A}, 0), at::cat({B, more.B}, 1)};
  const std::vector<factors::Factors> both{{B, A}, {more.B, more.A}};
  const auto merged = factors::merge(both, kNothing);
  return {merged.right, merged.left};
}

void Lora::export_to(const Model& model, std::span<const Module> modules, const std::string& base,
                     const std::filesystem::path& directory) const {
  require_created();
  const bool joined = std::ranges::any_of(sides_, [](const auto& side) { return !side.second.empty(); });
  PeftWriter writer("LORA", modules, base);
  std::vector<std::string> names;
  std::map<std::pair<std::int64_t, double>, std::size_t> counts;
  NumberPattern ranks, alphas;
  for (const auto& one : held()) {
    const auto& module = one.part.module;
    if (one.part.whole) continue;
    const auto pair = joined ? whole_pair(one.part, one.tensors) : pair_of(one.part, one.tensors);
    writer.tensor(module, "lora_A.weight", pair.A);
    writer.tensor(module, "lora_B.weight", pair.B);
    if (form_ == PairForm::Dora) writer.tensor(module, kMagnitude, one.tensors[2]);
    const auto rank = pair.A.size(0);
    const double alpha = joined ? static_cast<double>(rank) : alpha_of(module.name);
    names.push_back(module.name);
    ranks.emplace_back(module.name, static_cast<double>(rank));
    alphas.emplace_back(module.name, alpha);
    ++counts[{rank, alpha}];
  }
  // r and lora_alpha are those of most pairs; the patterns name the others.
  const auto most = std::ranges::max_element(counts, {}, [](const auto& one) { return one.second; })->first;
  std::erase_if(ranks, [&](const auto& one) { return one.second == static_cast<double>(most.first); });
  std::erase_if(alphas, [&](const auto& one) { return one.second == most.second; });
  writer.set("r", most.first);
  writer.set("lora_alpha", most.second);
  writer.set("lora_dropout", params_.dropout);
  writer.targets(names);
  writer.set("bias", std::string_view("none"));
  writer.flag("use_rslora", params_.rslora && !joined);
  writer.flag("use_dora", form_ == PairForm::Dora);
  writer.flag("init_lora_weights", true);
  writer.set("rank_pattern", ranks);
  writer.set("alpha_pattern", alphas);
  writer.finish(directory, model, wholes());
  if (form_ == PairForm::FixedA) sign(directory, name(), base);
}

bool Lora::recognises(const std::filesystem::path& directory) const {
  if (peft_type_of(directory) != "LORA") return false;
  if (peft_flag_of(directory, "use_dora") != (form_ == PairForm::Dora)) return false;
  const auto signed_by = own_adapter_of(directory);
  return form_ == PairForm::FixedA ? signed_by == name() : signed_by.empty();
}

void Lora::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  PeftReader reader(directory, who(), modules);
  auto& config = reader.config();
  config.choice("peft_type", "LORA", {"LORA"});
  const auto rank = config.positive("r");
  auto params = params_;
  params.alpha = config.required_real("lora_alpha");
  params.dropout = config.real("lora_dropout", 0);
  params.rslora = config.flag("use_rslora", false);
  params.start = PairStart::Default;
  params.patterns.clear();
  if (config.flag("use_dora", false) != (form_ == PairForm::Dora))
    config.refuse("use_dora", form_ == PairForm::Dora ? "true" : "false (adapter dora reads the others)");
  for (const auto* off : {"lora_bias", "use_qalora", "use_bdlora", "ensure_weight_tying"}) config.only(off, {"false"});
  config.only("loftq_config", {"{}"});
  config.only("bias", {"\"none\""});
  // The other ways to initialise change the base when PEFT loads the adapter.
  config.only("init_lora_weights", {"true", "false", "\"gaussian\"", "\"orthogonal\""});
  config.inert({{"target_modules", "the tensors' names say it"},
                {"exclude_modules", "the tensors' names say it"},
                {"layers_to_transform", "the tensors' names say it"},
                {"layers_pattern", "the tensors' names say it"},
                {"fan_in_fan_out", "how the base stores its weights; the pair is the same"},
                {"megatron_core", "a module's name, used with megatron_config only"},
                {"qalora_group_size", "used with use_qalora only"}});
  const auto ranks = reader.pattern("rank_pattern"), alphas = reader.pattern("alpha_pattern");
  std::vector<Held> found;
  std::map<std::string, Pair> fixed;
  params_ = params;
  for (const auto& module : modules) {
    if (!reader.has(module, "lora_A.weight") && !reader.has(module, "lora_B.weight")) continue;
    if (!is_linear_or_head(module))
      throw Error(fmt::format("{}: a pair for '{}', which is no linear module; not supported by {}", directory.string(),
                              module.name, who()));
    const auto own = static_cast<std::int64_t>(value_for(ranks, module.name, static_cast<double>(rank)));
    const auto A = reader.take(module, "lora_A.weight", {own, module.in});
    const auto B = reader.take(module, "lora_B.weight", {module.out, own});
    Held one{part_for(module, own, value_for(alphas, module.name, params_.alpha)), {A, B}};
    if (form_ == PairForm::Dora) one.tensors.push_back(reader.take(module, kMagnitude, {module.out}));
    if (form_ == PairForm::FixedA) {
      fixed[module.name].A = A;
      one.tensors = {B};
    }
    found.push_back(std::move(one));
  }
  const auto trained = reader.finish();
  if (found.empty()) throw Error(fmt::format("{}: holds no low-rank pair", directory.string()));
  adopt(std::move(found), trained);
  alphas_ = alphas;
  fixed_ = std::move(fixed);
  start_sides();
}

}  // namespace hansa::adapters
