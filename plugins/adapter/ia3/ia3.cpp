#include "ia3.hpp"

#include <algorithm>

#include <ATen/ops/ones.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::ia3 {

namespace {

using adapters::Part;
constexpr std::string_view kInput = "ia3_input", kOutput = "ia3_output", kStored = "ia3_l";

bool of_input(const Part& part) { return part.tensors[0].name.ends_with(kInput); }

}  // namespace

std::vector<Part> Ia3::parts(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);
  const auto chosen = [&](const std::string& list, const std::vector<std::string>& targets,
                          const std::vector<std::string_view>& usual) {
    const auto name = fmt::format("{}, {}", who(), list);
    return targets.empty()
               ? std::vector<Module>{}
               : adapters::choose(
                     {.adapter = name, .what = "linear modules", .fits = adapters::is_linear_or_head, .usual = usual},
                     {targets, params_.blocks}, modules);
  };
  const auto outputs = chosen("targets", params_.targets, adapters::kKeysAndValues),
             inputs = chosen("feedforward", params_.feedforward, adapters::kMlpOutputs);
  const auto among = [](const std::vector<Module>& list, const Module& module) {
    return std::ranges::any_of(list, [&](const Module& one) { return one.name == module.name; });
  };
  std::vector<Part> all;
  for (const auto& module : modules) {
    const bool output = among(outputs, module), input = among(inputs, module);
    if (output && input)
      throw Error(fmt::format("{}: '{}' is among targets and feedforward; it can be one of them", who(), module.name));
    if (output) all.push_back({.module = module, .tensors = {spec(module, kOutput, {module.out})}});
    if (input) all.push_back({.module = module, .tensors = {spec(module, kInput, {module.in})}});
  }
  return all;
}

auto Ia3::fresh(const Model&, const Part& part, at::Generator&) -> Tensors {
  return {at::ones(part.tensors[0].shape, at::kFloat)};
}

void Ia3::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  const auto of = of_input(part) ? Rescale::Of::Input : Rescale::Of::Output;
  all.push_back({part.module.name, Rescale{.by = tensors[0], .of = of}});
}

void Ia3::export_to(const Model& model, std::span<const Module> modules, const std::string& base,
                    const std::filesystem::path& directory) const {
  require_created();
  adapters::PeftWriter writer("IA3", modules, base);
  std::vector<std::string> names, inputs, outputs;
  for (const auto& one : held()) {
    if (one.part.whole) continue;
    const bool input = of_input(one.part);
    const auto& module = one.part.module;
    writer.tensor(module, kStored, one.tensors[0].detach().reshape({input ? 1 : -1, input ? -1 : 1}));
    names.push_back(module.name);
    (input ? inputs : outputs).push_back(module.name);
  }
  writer.targets(names);
  // PEFT wants each of feedforward_modules among target_modules, and lets them match anywhere.
  const auto feedforward = adapters::shortest_targets(modules, inputs, adapters::Ends::Plain);
  auto targets = adapters::shortest_targets(modules, outputs);
  targets.insert(targets.end(), feedforward.begin(), feedforward.end());
  writer.set("target_modules", targets);
  writer.set("feedforward_modules", feedforward);
  writer.flag("init_ia3_weights", true);
  writer.finish(directory, model, wholes());
}

bool Ia3::recognises(const std::filesystem::path& directory) const {
  return adapters::peft_type_of(directory) == "IA3";
}

void Ia3::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  adapters::PeftReader reader(directory, who(), modules);
  auto& config = reader.config();
  config.choice("peft_type", "IA3", {"IA3"});
  config.inert({{"target_modules", "the tensors' names say it"},
                {"exclude_modules", "the tensors' names say it"},
                {"feedforward_modules", "the tensors' shapes say it"},
                {"fan_in_fan_out", "how the base stores its weights; the factors are the same"},
                {"init_ia3_weights", "the tensors are there"}});
  std::vector<Held> found;
  for (const auto& module : modules) {
    if (!reader.has(module, kStored)) continue;
    const auto stored = reader.take(module, kStored, {-1, -1});
    const bool input = stored.size(0) == 1 && stored.size(1) == module.in;
    if (!adapters::is_linear_or_head(module) || (!input && (stored.size(1) != 1 || stored.size(0) != module.out)))
      throw Error(fmt::format("{}: the {} x {} factors of '{}' do not fit it", directory.string(), stored.size(0),
                              stored.size(1), module.name));
    const auto factors = stored.reshape({-1});
    found.push_back(
        {{.module = module, .tensors = {spec(module, input ? kInput : kOutput, factors.sizes().vec())}}, {factors}});
  }
  const auto trained = reader.finish();
  if (found.empty()) throw Error(fmt::format("{}: holds no factors of {}", directory.string(), who()));
  adopt(std::move(found), trained);
}

}  // namespace hansa::ia3

HANSA_PLUGIN(org_hansa_ia3, "0.1.0") {
  using namespace hansa;
  using ia3::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<ia3::Ia3, Params>("ia3", "One factor for each output of keys and values and each input of the last layer.")
      .doc(
          "(IA)3 (arXiv 2205.05638): the fewest parameters that touch every block. Exports and imports PEFT "
          "directories.")
      .param(
          &Params::targets, "targets",
          "Ends of names of the modules whose output is rescaled, or \"auto\": keys and values as families call them.",
          list_of())
      .param(&Params::feedforward, "feedforward",
             "The same of modules whose input is rescaled; \"auto\": the last of the feed-forward part.", list_of())
      .param(&Params::blocks, "blocks", "Numbers of the blocks that get factors, -1 is the last; none: all.", list_of())
      .param(&Params::modules_to_save, "modules_to_save",
             "Ends of names of modules that are trained whole beside, such as a new classification head.", list_of())
      .check([](const Params& p, Problems& problems) {
        if (p.targets.empty() && p.feedforward.empty())
          problems.add("targets", "targets and feedforward are both empty: nothing would be trained",
                       "name modules, or say \"auto\"");
      });
}
