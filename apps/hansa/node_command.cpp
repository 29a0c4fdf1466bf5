#include "node_command.hpp"

#include <unistd.h>

#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <hf/safetensors.hpp>
#include <hf/tokenizer.hpp>

#include "allocator.hpp"
#include "base/ids.hpp"
#include "config/load.hpp"
#include "coordinator_command.hpp"
#include "node/loop.hpp"
#include "opened.hpp"
#include "stop_signal.hpp"
#include "trust_options.hpp"

namespace hansa {
namespace {

wire::Hello hello_of(const NodeOptions& options, const StrategyRegistry& registry) {
  wire::Hello hello;
  hello.node = options.name;
  hello.rank = options.rank;
  hello.build = build_text();
  // A folder without weights is a config to start from; then the config is the base.
  const bool weights = std::filesystem::exists(options.model / "model.safetensors") ||
                       std::filesystem::exists(options.model / "model.safetensors.index.json");
  hello.base_digest = weights ? hf::checkpoint_digest(options.model) : sha256_file_hex(options.model / "config.json");
  if (hf::has_tokenizer(options.model)) hello.tokenizer_digest = hf::tokenizer_digest(options.model);
  for (const auto& file : registry.files()) {
    if (file.outcome == Outcome::Loaded) hello.plugins.push_back({file.plugin->id, file.plugin->version, {}});
  }
  struct sysinfo system {};
  if (sysinfo(&system) == 0) hello.resources.ram_bytes = system.totalram * system.mem_unit;
  return hello;
}

}  // namespace

int node_command(const NodeOptions& options) {
  keep_large_blocks(Keeps::Everything);
  const auto& stop = stop_on_signals();
  if (!is_node_name(options.name)) {
    throw Error(fmt::format(
        "'{}' is no name for a node: use 1 to 64 of the characters A-Z a-z 0-9 . _ - and begin with a letter or digit",
        options.name));
  }
  const Log log(LogLevel::Info, options.name + ": ");
  StrategyRegistry registry;
  registry.set_trust(policy_of(options.trust));
  registry.scan(search_paths(options.plugin_path, {}));
  if (options.trust.require_signed)  // else the coordinator only misses them
    for (const auto& file : registry.files())
      if (file.outcome == Outcome::Refused) log.warning(fmt::format("{} {}", file.path.string(), file.why));
  std::atomic<bool> cancelled{false};
  config::RunSpec spec;
  node::Loop* running = nullptr;
  HostServices services{&log, &cancelled, 0, {}};
  services.progress = [&](std::string_view, std::uint64_t done, std::uint64_t total) {
    if (running) running->progress(wire::Stage::Training, done, total);
  };
  wire::ClientOptions client;
  client.exposure = options.insecure_plaintext ? wire::Exposure::PlaintextAnywhere : wire::Exposure::LocalOnly;
  client.cancel = &stop;
  client.give_up_after_ms = static_cast<std::uint32_t>(1000 * options.give_up_after);
  const auto make_worker = [&](const std::string& canonical) {
    spec = config::spec_from_canonical(canonical, registry);
    spec.model_host.path = options.model;
    services.run_seed = static_cast<std::uint64_t>(spec.run.seed);
    return std::make_unique<node::Worker>(spec, registry, services, options.rank);
  };
  node::Loop loop({options.connect,
                   hello_of(options, registry),
                   {options.name, options.data, options.heldout, options.state},
                   client,
                   log,
                   stop,
                   cancelled,
                   make_worker});
  running = &loop;
  const auto result = loop.run();
  log.info(result.message);
  return result.finished ? 0 : stop ? kExitStopped : 1;
}

}  // namespace hansa
