#include "vera.hpp"

#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>
#include <nn/dropout.hpp>

#include "base/error.hpp"

namespace hansa::vera {

namespace {

using adapters::Part;
constexpr std::string_view kInner = "vera_lambda_d", kOuter = "vera_lambda_b";
constexpr const char *kA = "base_model.vera_A", *kB = "base_model.vera_B";

}  // namespace

Part Vera::part_for(const Module& module) const {
  return {.module = module, .tensors = {spec(module, kInner, {params_.r}), spec(module, kOuter, {module.out})}};
}

std::vector<Part> Vera::parts(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);  // the shared projections have one rank
  const auto name = who();
  std::vector<Part> all;
  for (const auto& module : adapters::choose({.adapter = name,
                            .what = "linear modules",
                            .fits = adapters::is_linear_or_head,
                            .all = "all-linear",
                            .of_all = adapters::is_linear},
                                             {params_.targets, params_.blocks}, modules))
    all.push_back(part_for(module));
  return all;
}

// PEFT's: Kaiming-uniform, A before B from one generator, so that its key gives its numbers.
void Vera::draw_projections(std::int64_t in, std::int64_t out) {
  at::NoGradGuard no_grad;
  auto generator = nn::make_generator(static_cast<std::uint64_t>(params_.projection_key));
  const auto drawn = [&](std::int64_t rows, std::int64_t columns) {
    const double bound = std::sqrt(6.0 / static_cast<double>(columns));
    return at::empty({rows, columns}, at::kFloat).uniform_(-bound, bound, generator);
  };
  A_ = drawn(params_.r, in);
  B_ = drawn(out, params_.r);
}

void Vera::begin(const Model&, const std::vector<Part>& all, std::uint64_t /*seed*/) {
  std::int64_t in = 0, out = 0;
  for (const auto& part : all) {
    if (part.whole) continue;
    in = std::max(in, part.module.in);
    out = std::max(out, part.module.out);
  }
  draw_projections(in, out);
}

auto Vera::fresh(const Model&, const Part& part, at::Generator&) -> Tensors {
  return {at::full({params_.r}, params_.initial, at::kFloat), at::zeros({part.module.out}, at::kFloat)};
}

void Vera::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  const auto& module = part.module;
  all.push_back({module.name, LowRank{.A = A_.narrow(1, 0, module.in),
                                      .B = B_.narrow(0, 0, module.out),
                                      .dropout = params_.dropout,
                                      .inner = tensors[0],
                                      .outer = tensors[1]}});
}

void Vera::export_to(const Model& model, std::span<const Module> modules, const std::string& base,
                     const std::filesystem::path& directory) const {
  require_created();
  adapters::PeftWriter writer("VERA", modules, base);
  std::vector<std::string> names;
  for (const auto& one : held()) {
    if (one.part.whole) continue;
    writer.tensor(one.part.module, kInner, one.tensors[0]);
    writer.tensor(one.part.module, kOuter, one.tensors[1]);
    names.push_back(one.part.module.name);
  }
  writer.tensor(kA, A_);
  writer.tensor(kB, B_);
  writer.targets(names);
  writer.set("r", params_.r);
  writer.set("vera_dropout", params_.dropout);
  writer.set("d_initial", params_.initial);
  writer.set("projection_prng_key", params_.projection_key);
  writer.flag("save_projection", true);
  writer.set("bias", std::string_view("none"));
  writer.flag("init_weights", true);
  writer.finish(directory, model, wholes());
}

bool Vera::recognises(const std::filesystem::path& directory) const {
  return adapters::peft_type_of(directory) == "VERA";
}

void Vera::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  adapters::PeftReader reader(directory, who(), modules);
  auto& config = reader.config();
  config.choice("peft_type", "VERA", {"VERA"});
  params_.r = config.positive("r", 256);
  params_.dropout = config.fraction("vera_dropout", 0);
  params_.initial = config.real("d_initial", 0.1);
  params_.projection_key = config.integer("projection_prng_key", 0);
  const bool saved = config.flag("save_projection", true);
  config.only("bias", {"\"none\""});
  config.inert({{"target_modules", "the tensors' names say it"},
                {"exclude_modules", "the tensors' names say it"},
                {"layers_to_transform", "the tensors' names say it"},
                {"layers_pattern", "the tensors' names say it"},
                {"fan_in_fan_out", "how the base stores its weights; the pair is the same"},
                {"init_weights", "the tensors are there"}});
  std::vector<Held> found;
  std::int64_t in = 0, out = 0;
  for (const auto& module : modules) {
    if (!reader.has(module, kInner) && !reader.has(module, kOuter)) continue;
    if (!adapters::is_linear_or_head(module))
      throw Error(fmt::format("{}: vectors for '{}', which is no linear module; not supported by {}",
                              directory.string(), module.name, who()));
    found.push_back(
        {part_for(module), {reader.take(module, kInner, {params_.r}), reader.take(module, kOuter, {module.out})}});
    in = std::max(in, module.in);
    out = std::max(out, module.out);
  }
  if (found.empty()) throw Error(fmt::format("{}: holds no vectors of {}", directory.string(), who()));
  if (saved) {
    A_ = reader.take(kA, {params_.r, -1});
    B_ = reader.take(kB, {-1, params_.r});
    if (A_.size(1) < in || B_.size(0) < out)
      throw Error(fmt::format("{}: {} has {} columns and {} {} rows; the widest modules need {} and {}",
                              directory.string(), kA, A_.size(1), kB, B_.size(0), in, out));
  } else {
    draw_projections(in, out);
  }
  adopt(std::move(found), reader.finish());
}

}  // namespace hansa::vera

HANSA_PLUGIN(org_hansa_vera, "0.1.0") {
  using namespace hansa;
  using vera::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<vera::Vera, Params>("vera", "Two trained vectors a module around random matrices that all modules share.")
      .doc(
          "y += b * (B (d * (A dropout(x)))) with fixed A and B (arXiv 2310.11454): the matrices follow from a key and "
          "are "
          "never sent. Exports and imports PEFT directories.")
      .param(&Params::targets, "targets", "Ends of module names, such as q_proj or attn.c_proj; or \"all-linear\".",
             list_of(), at_least(1))
      .param(&Params::blocks, "blocks", "Numbers of the blocks that get vectors, -1 is the last; none: all.", list_of())
      .param(&Params::r, "r", "Rank of the shared matrices; larger than with lora, it costs a value a module.",
             at_least(1))
      .param(&Params::initial, "d_initial", "What d starts as; b starts at zero.")
      .param(&Params::dropout, "dropout", "Chance that an input of a pair is dropped in training.", at_least(0),
             less_than(1))
      .param(&Params::projection_key, "projection_key", "The shared matrices follow from it, as PEFT's do.",
             at_least(0))
      .param(&Params::modules_to_save, "modules_to_save",
             "Ends of names of modules that are trained whole beside, such as a new classification head.", list_of());
}
