#include "prefix_tuning.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::prefix_tuning {

namespace {

using adapters::Part;
constexpr std::string_view kKeys = "prefix_keys", kValues = "prefix_values", kStored = "prompt_embeddings";

}  // namespace

Part PrefixTuning::part_for(const Module& module, std::int64_t tokens) const {
  return {.module = module,
          .tensors = {spec(module, kKeys, {tokens, module.in, module.out}),
                      spec(module, kValues, {tokens, module.in, module.out})}};
}

std::vector<Module> PrefixTuning::layers_of(std::span<const Module> modules) const {
  std::vector<Module> layers;
  for (const auto& module : modules)
    if (module.kind == Module::Kind::Attention) layers.push_back(module);
  if (layers.empty())
    throw Error(
        fmt::format("{}: this model has no attention layer that takes a prefix; prompt_tuning puts soft tokens "
                    "before any text",
                    who()));
  return layers;
}

std::vector<Part> PrefixTuning::parts(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);
  std::vector<Part> all;
  for (const auto& module : layers_of(modules)) all.push_back(part_for(module, params_.tokens));
  return all;
}

auto PrefixTuning::fresh(const Model&, const Part& part, at::Generator& generator) -> Tensors {
  Tensors made;
  for (const auto& tensor : part.tensors)
    made.push_back(at::empty(tensor.shape, at::kFloat).normal_(0, params_.deviation, generator));
  return made;
}

void PrefixTuning::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  all.push_back({part.module.name, Prefix{.keys = tensors[0], .values = tensors[1]}});
}

void PrefixTuning::export_to(const Model& model, std::span<const Module> modules, const std::string& base,
                             const std::filesystem::path& directory) const {
  require_created();
  std::vector<at::Tensor> all;  // keys and values of the first layer, of the second …
  for (const auto& one : held()) {
    const auto& first = held()[0].part.module;
    if (one.part.module.in != first.in || one.part.module.out != first.out)
      throw Error(
          fmt::format("{}: the attention of '{}' has other heads than that of '{}'; PEFT's format has one width", who(),
                      one.part.module.name, first.name));
    for (const auto& tensor : one.tensors) all.push_back(tensor.detach());
  }
  const auto& layer = held()[0].part.module;
  const auto tokens = all[0].size(0);
  adapters::PeftWriter writer("PREFIX_TUNING", modules, base);
  writer.tensor(std::string(kStored), at::stack(all, 1).reshape({tokens, -1}));
  writer.set("num_virtual_tokens", tokens);
  writer.set("token_dim", layer.in * layer.out);
  writer.set("num_layers", static_cast<std::int64_t>(held().size()));
  writer.set("num_attention_heads", layer.in);
  writer.set("num_transformer_submodules", std::int64_t{1});
  writer.flag("prefix_projection", false);
  writer.finish(directory, model, {});
}

bool PrefixTuning::recognises(const std::filesystem::path& directory) const {
  return adapters::peft_type_of(directory) == "PREFIX_TUNING";
}

void PrefixTuning::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  adapters::PeftReader reader(directory, who(), modules);
  auto& config = reader.config();
  config.choice("peft_type", "PREFIX_TUNING", {"PREFIX_TUNING"});
  const auto tokens = config.positive("num_virtual_tokens");
  config.only("num_transformer_submodules", {"1"});
  config.inert({{"token_dim", "the tensor says it"},
                {"num_layers", "the model says it"},
                {"num_attention_heads", "the model says it"},
                {"prefix_projection", "what is saved is what the projection gave"},
                {"encoder_hidden_size", "of that projection"},
                {"init_weights", "the tensor is there"}});
  const auto layers = layers_of(modules);
  std::int64_t width = 0;
  for (const auto& layer : layers) width += 2 * layer.in * layer.out;
  const auto stored = reader.take(std::string(kStored), {tokens, width});
  std::vector<Held> found;
  std::int64_t at = 0;
  for (const auto& layer : layers) {
    Held one{part_for(layer, tokens), {}};
    for (int i = 0; i < 2; ++i) {
      const auto size = layer.in * layer.out;
      one.tensors.push_back(stored.narrow(1, at, size).reshape({tokens, layer.in, layer.out}));
      at += size;
    }
    found.push_back(std::move(one));
  }
  adopt(std::move(found), reader.finish());
}

}  // namespace hansa::prefix_tuning

HANSA_PLUGIN(org_hansa_prefix_tuning, "0.1.0") {
  using namespace hansa;
  using prefix_tuning::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<prefix_tuning::PrefixTuning, Params>("prefix_tuning",
                                                "Trained keys and values before every text, in each layer.")
      .doc(
          "Prefix tuning (arXiv 2101.00190), the keys and values themselves: no network makes them while training. The "
          "longest sequence shrinks by them. Exports and imports PEFT directories.")
      .param(&Params::tokens, "tokens", "How many keys and values a layer.", at_least(1))
      .param(&Params::deviation, "deviation", "Of the normal distribution that they start with.", at_least(0));
}
