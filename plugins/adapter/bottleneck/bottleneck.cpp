#include "bottleneck.hpp"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::bottleneck {

namespace {

using adapters::Part;
constexpr double kDeviation = 0.01;  // of the first matrix, as in the paper; the second is zero
const std::vector<std::string> kActivations{"relu", "gelu", "silu"};

std::vector<std::vector<std::int64_t>> shapes(const Module& module, std::int64_t width) {
  return {{width, module.out}, {width}, {module.out, width}, {module.out}};
}

}  // namespace

std::vector<std::string> Bottleneck::ends() const {
  return {"bottleneck_down", "bottleneck_down_bias", "bottleneck_up", "bottleneck_up_bias"};
}

std::vector<Part> Bottleneck::parts(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);
  const auto name = who();
  auto usual = adapters::kAttentionOutputs;
  usual.insert(usual.end(), adapters::kMlpOutputs.begin(), adapters::kMlpOutputs.end());
  std::vector<Part> all;
  for (const auto& module : adapters::choose(
           {.adapter = name, .what = "linear modules of the blocks", .fits = adapters::is_linear, .usual = usual},
           {params_.targets, params_.blocks}, modules)) {
    Part part{.module = module, .tensors = {}};
    const auto sizes = shapes(module, params_.width);
    for (std::size_t i = 0; i < sizes.size(); ++i) part.tensors.push_back(spec(module, ends()[i], sizes[i]));
    all.push_back(std::move(part));
  }
  return all;
}

auto Bottleneck::fresh(const Model&, const Part& part, at::Generator& generator) -> Tensors {
  const auto& tensors = part.tensors;
  return {at::empty(tensors[0].shape, at::kFloat).normal_(0, kDeviation, generator),
          at::zeros(tensors[1].shape, at::kFloat), at::zeros(tensors[2].shape, at::kFloat),
          at::zeros(tensors[3].shape, at::kFloat)};
}

void Bottleneck::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  all.push_back({part.module.name, hansa::Bottleneck{.down = tensors[0],
                                                     .down_bias = tensors[1],
                                                     .up = tensors[2],
                                                     .up_bias = tensors[3],
                                                     .activation = params_.activation}});
}

void Bottleneck::check_stored(const std::filesystem::path& directory, const Part& part) const {
  const auto& tensors = part.tensors;
  const auto wanted = shapes(part.module, tensors[0].shape.empty() ? 0 : tensors[0].shape[0]);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (!adapters::is_linear(part.module) || tensors[i].shape != wanted[i])
      throw Error(fmt::format("{}: tensor '{}' does not fit its module", directory.string(), tensors[i].name));
}

adapters::Settings Bottleneck::settings() const {
  return {{"activation", kActivations[static_cast<std::size_t>(params_.activation)]}};
}

void Bottleneck::restore(const adapters::Settings& settings) {
  const auto found = settings.find("activation");
  const auto name = found == settings.end() ? std::string() : found->second;
  const auto at = std::find(kActivations.begin(), kActivations.end(), name);
  if (at == kActivations.end())
    throw Error(fmt::format("{}: the directory's activation '{}' is not known", who(), name));
  params_.activation = static_cast<Activation>(at - kActivations.begin());
}

}  // namespace hansa::bottleneck

HANSA_PLUGIN(org_hansa_bottleneck, "0.1.0") {
  using namespace hansa;
  using bottleneck::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<bottleneck::Bottleneck, Params>("bottleneck",
                                           "A small two-layer network behind attention and feed-forward part.")
      .doc(
          "y += up act(down y + bias) + bias behind each chosen module, before the sum with what went around it "
          "(Houlsby et "
          "al., arXiv 1902.00751). It does not fold into the weights: a merged export is refused.")
      .param(&Params::targets, "targets",
             "Ends of module names, or \"auto\": what attention and feed-forward part end with, as families call it.",
             list_of(), at_least(1))
      .param(&Params::blocks, "blocks", "Numbers of the blocks that get them, -1 is the last; none: all.", list_of())
      .param(&Params::width, "width", "Values between the two layers.", at_least(1))
      .param(&Params::activation, "activation", "Between them.", choices({"relu", "gelu", "silu"}))
      .param(&Params::modules_to_save, "modules_to_save",
             "Ends of names of modules that are trained whole beside, such as a new classification head.", list_of());
}
