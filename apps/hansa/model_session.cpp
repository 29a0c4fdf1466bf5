#include "model_session.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hansa {

const Tokenizer& ModelSession::require_tokenizer(const std::filesystem::path& checkpoint) const {
  if (!tokenizer) throw Error(fmt::format("{} holds no tokenizer.json", checkpoint.string()));
  return *tokenizer;
}

ModelSession open_model(const StrategyRegistry& registry, const HostServices& services,
                        const std::filesystem::path& checkpoint, const std::optional<std::filesystem::path>& adapter,
                        const Opening& opening) {
  ModelSession session;
  for (const auto* component : registry.components("model")) {
    auto model = create<Model>(registry, *component, with_defaults(*component, Value()), services);
    if (model->accepts(checkpoint)) {
      session.model = std::move(model);
      break;
    }
  }
  if (!session.model) {
    throw Error(fmt::format(
        "no model plugin accepts {} (its config.json names a model_type that none knows, or is missing); there are: {}",
        checkpoint.string(), fmt::join(registry.names("model"), ", ")));
  }
  guard(session.model, {.doing = "open"}, [&](Model& model) {
    session.modules = model.modules(checkpoint);
    model.open(checkpoint, opening);
  });
  if (hf::has_tokenizer(checkpoint)) {
    auto tokenizer = std::make_unique<hf::HfTokenizer>(checkpoint);
    hf::require_ids_within(session.model->vocabulary(), *tokenizer, checkpoint);
    session.tokenizer = std::move(tokenizer);
  }
  if (!adapter) return session;

  for (const auto* component : registry.components("adapter")) {
    auto one = create<Adapter>(registry, *component, with_defaults(*component, Value()), services);
    if (!one->recognises(*adapter)) continue;
    guard(one, {.doing = "import"}, [&](Adapter& made) {
      made.import_from(*adapter, *session.model, session.modules);
      session.model->inject(made.injections());
    });
    session.adapter = std::move(one);
    return session;
  }
  throw Error(fmt::format("no adapter plugin recognises {}; there are: {}", adapter->string(),
                          fmt::join(registry.names("adapter"), ", ")));
}

}  // namespace hansa
