#include "prompt_tuning.hpp"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::prompt_tuning {

namespace {

using adapters::Part;
constexpr std::string_view kRows = "prompt", kStored = "prompt_embeddings";

// A model's first embedding is that of its tokens; those of positions and types come after it.
const Module& embedding_of(const std::string& who, std::span<const Module> modules) {
  const auto found = std::ranges::find(modules, Module::Kind::Embedding, &Module::kind);
  if (found == modules.end())
    throw Error(fmt::format("{}: this model has no embedding of tokens to put a prompt before", who));
  return *found;
}

std::int64_t blocks_in(std::span<const Module> modules) {
  std::int64_t count = 0;
  for (const auto& module : modules) count = std::max(count, adapters::block_of(module.name).value_or(-1) + 1);
  return count;
}

}  // namespace

std::vector<Part> PromptTuning::parts(std::span<const Module> modules, double rank) const {
  refuse_rank(rank);
  const auto& module = embedding_of(who(), modules);
  return {{.module = module, .tensors = {spec(module, kRows, {params_.tokens, module.out})}}};
}

auto PromptTuning::fresh(const Model& model, const Part& part, at::Generator& generator) -> Tensors {
  const auto& shape = part.tensors[0].shape;
  if (params_.start == Start::Random) return {at::empty(shape, at::kFloat).normal_(0, 1, generator)};
  const auto ids = at::randint(0, part.module.in, {params_.tokens}, generator, at::kLong);
  return {model.base(part.module.name).first.index_select(0, ids)};
}

void PromptTuning::inject(const Part& part, const Tensors& tensors, std::vector<Injection>& all) const {
  all.push_back({part.module.name, Prompt{tensors[0]}});
}

void PromptTuning::export_to(const Model& model, std::span<const Module> modules, const std::string& base,
                             const std::filesystem::path& directory) const {
  require_created();
  adapters::PeftWriter writer("PROMPT_TUNING", modules, base);
  const auto& rows = held()[0].tensors[0];
  writer.tensor(std::string(kStored), rows);
  writer.set("num_virtual_tokens", rows.size(0));
  writer.set("token_dim", rows.size(1));
  writer.set("num_layers", blocks_in(modules));
  if (const auto heads = adapters::attention_heads_of(base)) writer.set("num_attention_heads", *heads);
  writer.set("num_transformer_submodules", std::int64_t{1});
  writer.set("prompt_tuning_init", std::string_view("RANDOM"));
  writer.finish(directory, model, {});
}

bool PromptTuning::recognises(const std::filesystem::path& directory) const {
  return adapters::peft_type_of(directory) == "PROMPT_TUNING";
}

void PromptTuning::import_from(const std::filesystem::path& directory, const Model&, std::span<const Module> modules) {
  adapters::PeftReader reader(directory, who(), modules);
  auto& config = reader.config();
  config.choice("peft_type", "PROMPT_TUNING", {"PROMPT_TUNING"});
  const auto& module = embedding_of(who(), modules);
  const auto tokens = config.positive("num_virtual_tokens");
  config.only("num_transformer_submodules", {"1"});
  config.inert({{"token_dim", "the tensor says it"},
                {"num_layers", "the model says it"},
                {"num_attention_heads", "the model says it"},
                {"prompt_tuning_init", "the tensor is there"},
                {"prompt_tuning_init_text", "the tensor is there"},
                {"tokenizer_name_or_path", "the tensor is there"},
                {"tokenizer_kwargs", "the tensor is there"}});
  const auto rows = reader.take(std::string(kStored), {tokens, module.out});
  Held one{{.module = module, .tensors = {spec(module, kRows, rows.sizes().vec())}}, {rows}};
  const auto trained = reader.finish();
  adopt({std::move(one)}, trained);
}

}  // namespace hansa::prompt_tuning

HANSA_PLUGIN(org_hansa_prompt_tuning, "0.1.0") {
  using namespace hansa;
  using prompt_tuning::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<prompt_tuning::PromptTuning, Params>("prompt_tuning", "Trained soft tokens before every text.")
      .doc(
          "Prompt tuning (arXiv 2104.08691): rows of the embedding that stand for no word. The longest sequence "
          "shrinks by "
          "them. Exports and imports PEFT directories.")
      .param(&Params::tokens, "tokens", "How many.", at_least(1))
      .param(&Params::start, "init",
             "vocabulary: as words drawn from the vocabulary. random: normal, as PEFT's default.",
             choices({"vocabulary", "random"}));
}
