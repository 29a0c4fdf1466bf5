#include "my_plugin.hpp"

#include <stdexcept>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nll_loss.h>
#include <hansa/plugin.hpp>
#include <hf/json_config.hpp>
#include <hf/tensors.hpp>

namespace example {
namespace {

constexpr const char* kTable = "table";

std::int64_t read_vocabulary(const std::filesystem::path& checkpoint) {
  auto config = hansa::hf::JsonConfig::read(checkpoint, "my_plugin");
  const auto size = config.positive("vocab_size");
  config.finish();  // refuses keys that nobody asked for: they would change the model
  return size;
}

struct Length final : hansa::Cache {  // nothing to remember but how far it is
  std::int64_t at = 0;
  std::int64_t length() const override { return at; }
};

void require_plain(const hansa::Opening& opening) {
  if (!opening.device.is_cpu() || opening.compute != hansa::DType::f32 || opening.base != hansa::BaseDtype::Compute)
    throw std::invalid_argument("my_plugin computes in f32 on the CPU only, with a base in f32");
}

}  // namespace

bool MyPlugin::accepts(const std::filesystem::path& checkpoint) const {
  return hansa::hf::model_type_of(checkpoint) == "my_plugin";
}

std::vector<hansa::Module> MyPlugin::modules(const std::filesystem::path& checkpoint) const {
  const auto size = read_vocabulary(checkpoint);
  return {{.name = kTable, .kind = hansa::Module::Kind::Embedding, .in = size, .out = size}};
}

void MyPlugin::open(const std::filesystem::path& checkpoint, const hansa::Opening& opening) {
  require_plain(opening);
  vocabulary_ = read_vocabulary(checkpoint);
  const hansa::hf::Checkpoint weights(checkpoint);
  table_ = hansa::hf::load_tensor(weights, "table.weight", hansa::DType::f32);
  if (table_.sizes() != at::IntArrayRef({vocabulary_, vocabulary_}))
    throw std::invalid_argument("my_plugin: 'table.weight' does not have vocab_size rows and columns");
  injected_ = at::Tensor();
}

void MyPlugin::initialise(const std::filesystem::path& checkpoint, const hansa::Opening& opening, std::uint64_t seed) {
  require_plain(opening);
  vocabulary_ = read_vocabulary(checkpoint);
  table_ = at::empty({vocabulary_, vocabulary_}, at::kFloat);
  auto* to = table_.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < table_.numel(); ++i) {  // SplitMix64 of a counter, from -0.01 to 0.01
    std::uint64_t z = seed + (static_cast<std::uint64_t>(i) + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    to[i] = (static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1.0p-23f - 1) * 0.01f;
  }
  injected_ = at::Tensor();
}

std::pair<at::Tensor, at::Tensor> MyPlugin::base(std::string_view module) const {
  if (module != kTable) throw std::invalid_argument("my_plugin has no module '" + std::string(module) + "'");
  return {table_, {}};
}

std::vector<std::pair<std::string, at::Tensor>> MyPlugin::merged() const {
  return {{"table.weight", injected_.defined() ? injected_.detach() : table_}};
}

void MyPlugin::inject(std::span<const hansa::Injection> injections) {
  at::Tensor weight;  // a refusal changes nothing
  for (const auto& [module, what] : injections) {
    const auto* replace = std::get_if<hansa::Replace>(&what);
    if (module != kTable || !replace)
      throw std::invalid_argument("my_plugin takes other weights for 'table' only, not what is meant for '" + module +
                                  "'");
    if (!replace->weight.defined() || replace->weight.sizes() != table_.sizes() || replace->bias.defined())
      throw std::invalid_argument("my_plugin: 'table' takes weights of the base's shape and no bias");
    weight = replace->weight;
  }
  injected_ = weight;
}

at::Tensor MyPlugin::rows(const at::Tensor& tokens) const {
  const auto& table = injected_.defined() ? injected_ : table_;
  return table.index_select(0, tokens.flatten());
}

at::Tensor MyPlugin::loss(const hansa::Batch& batch) {
  constexpr std::int64_t kSum = 2;  // at::Reduction::Sum
  return at::nll_loss(at::log_softmax(rows(batch.tokens), 1), batch.labels.flatten(), {}, kSum, -100);
}

at::Tensor MyPlugin::label_losses(const hansa::Batch& batch) {
  constexpr std::int64_t kNone = 0;  // at::Reduction::None
  const auto nats = at::nll_loss(at::log_softmax(rows(batch.tokens), 1), batch.labels.flatten(), {}, kNone, -100);
  return nats.view(batch.labels.sizes());
}

at::Tensor MyPlugin::counted_logits(const hansa::Batch& batch) {
  const auto counted = batch.labels.flatten().ge(0).nonzero().squeeze(1);
  return rows(batch.tokens).index_select(0, counted);
}

at::Tensor MyPlugin::hidden(const hansa::Batch& batch) {
  return logits(batch, nullptr);  // nothing lies below its logits
}

std::unique_ptr<hansa::Cache> MyPlugin::cache(std::int64_t, std::int64_t) const { return std::make_unique<Length>(); }

at::Tensor MyPlugin::logits(const hansa::Batch& batch, hansa::Cache* cache) {
  const at::NoGradGuard no_grad;
  if (auto* length = dynamic_cast<Length*>(cache)) length->at += batch.tokens.size(1);
  return rows(batch.tokens).view({batch.tokens.size(0), batch.tokens.size(1), vocabulary_});
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin>("my_plugin", "A table of logits: each token depends on the one before it.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_STATELESS);
}
