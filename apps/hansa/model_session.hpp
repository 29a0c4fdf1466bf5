// A checkpoint opened without a pipeline: the model plugin that accepts it, the adapter plugin that recognises the adapter's
// directory, the tokenizer beside the weights. Main thread. Throws Error that says which models or adapters there are.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include <hansa/adapter.hpp>
#include <hf/tokenizer.hpp>

#include "plugin_host/instance.hpp"

namespace hansa {

struct ModelSession {
  Instance<Model> model;
  std::vector<Module> modules;
  Instance<Adapter> adapter;  // null: none was asked for
  std::unique_ptr<Tokenizer> tokenizer;

  const Tokenizer& require_tokenizer(const std::filesystem::path& checkpoint) const;
};

ModelSession open_model(const StrategyRegistry&, const HostServices&, const std::filesystem::path& checkpoint,
                        const std::optional<std::filesystem::path>& adapter, const Opening&);

}  // namespace hansa
