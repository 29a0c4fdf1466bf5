#include "bitfit.hpp"

#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::bitfit {

namespace {

using adapters::Part;

bool has_bias(const Module& module) { return module.bias; }

}  // namespace

std::vector<Part> BitFit::parts(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);
  const auto name = who();
  std::vector<Part> all;
  for (const auto& module :
       adapters::choose({.adapter = name, .what = "modules with a bias", .fits = has_bias, .all = "all"},
                        {params_.targets, params_.blocks}, modules))
    all.push_back({.module = module, .tensors = {spec(module, "bias", {module.out})}});
  return all;
}

auto BitFit::fresh(const Model& model, const Part& part, at::Generator&) -> Tensors {
  return {model.base(part.module.name).second};
}

void BitFit::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  all.push_back({part.module.name, Replace{.weight = {}, .bias = tensors[0]}});
}

void BitFit::check_stored(const std::filesystem::path& directory, const Part& part) const {
  const auto& module = part.module;
  if (!module.bias || part.tensors[0].shape != std::vector<std::int64_t>{module.out})
    throw Error(fmt::format("{}: '{}' has no bias of {}", directory.string(), module.name, part.tensors[0].shape[0]));
}

}  // namespace hansa::bitfit

HANSA_PLUGIN(org_hansa_bitfit, "0.1.0") {
  using namespace hansa;
  using bitfit::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<bitfit::BitFit, Params>("bitfit", "The biases train, all else stays.")
      .doc(
          "BitFit (arXiv 2106.10199). For models that have biases: GPT-2, OPT, Pythia, BERT and its like, the queries, "
          "keys "
          "and values of Qwen2.")
      .param(&Params::targets, "targets", "Ends of names of modules whose bias trains; or \"all\".", list_of(),
             at_least(1))
      .param(&Params::blocks, "blocks", "Numbers of the blocks whose biases train, -1 is the last; none: all.",
             list_of())
      .param(&Params::modules_to_save, "modules_to_save",
             "Ends of names of modules that are trained whole beside, such as a new classification head.", list_of());
}
