#include "node_command.hpp"

#include <signal.h>
#include <unistd.h>

#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <hf/safetensors.hpp>
#include <hf/tokenizer.hpp>

#include "allocator.hpp"
#include "base/ids.hpp"
#include "config/load.hpp"
#include "coordinator_command.hpp"
#include "devices/devices.hpp"
#include "node/company.hpp"
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

namespace {

// What all processes of a node have in common.
class NodeProcess {
 public:
  NodeProcess(const NodeOptions& options, const peers::Launch& launch)
      : options_(options),
        launch_(launch),
        log_(LogLevel::Info,
             launch.rank == 0 ? options.name + ": " : fmt::format("{}/{}: ", options.name, launch.rank)),
        device_(require_device(options.device, {launch.local_rank, launch.local_size})),
        watch_({options.call_limit, options.call_grace, CallWatch::Limits::Since::Progress}) {
    registry_.set_trust(policy_of(options.trust));
    registry_.scan(search_paths(options.plugin_path, {}));
    if (options.trust.require_signed)  // else the coordinator only misses them
      for (const auto& file : registry_.files())
        if (file.outcome == Outcome::Refused) log_.warning(fmt::format("{} {}", file.path.string(), file.why));
    if (launch.size > 1) group_ = peers::Group::meet(launch, device_);
    services_ = {&log_, &cancelled_, 0, {}, &watch_};
  }

  int run() {
    if (launch_.rank > 0) return assist();
    if (!group_) return lead(nullptr);
    node::Company company(*group_);
    int code = 1;
    try {
      code = lead(&company);
      company.end(message_, code);
      return code;
    } catch (const peers::OutOfStep&) {
      if (code != kExitStopped) throw;
      return code;  // the others were asked to end too, and did at once
    } catch (const std::exception&) {
      company.end(plain_message(), 1);
      throw;
    }
  }

 private:
  int lead(node::Company* company) {
    const auto& stop = stop_on_signals();
    node::Loop* running = nullptr;
    services_.progress = [&](std::string_view, std::uint64_t done, std::uint64_t total) {
      if (running) running->progress(wire::Stage::Training, done, total);
    };
    wire::ClientOptions client;
    client.exposure = options_.insecure_plaintext ? wire::Exposure::PlaintextAnywhere : wire::Exposure::LocalOnly;
    client.cancel = &stop;
    client.give_up_after_ms = static_cast<std::uint32_t>(1000 * options_.give_up_after);
    node::Loop loop({options_.connect,
                     hello_of(options_, registry_),
                     {options_.name, options_.data, options_.heldout, options_.state},
                     client,
                     log_,
                     stop,
                     cancelled_,
                     [this](const std::string& canonical) { return make_worker(canonical); },
                     company});
    running = &loop;
    const auto result = loop.run();
    log_.info(result.message);
    message_ = result.message;
    return result.finished ? 0 : stop ? kExitStopped : 1;
  }

  int assist() {
    signal(SIGPIPE, SIG_IGN);
    const auto state = options_.state / fmt::format("process-{}", launch_.rank);
    node::Assistant assistant(*group_, {options_.name, options_.data, options_.heldout, state}, log_,
                              [this](const std::string& canonical) { return make_worker(canonical); });
    return assistant.run();
  }

  std::unique_ptr<node::Worker> make_worker(const std::string& canonical) {
    spec_ = config::spec_from_canonical(canonical, registry_);
    spec_.model_host.path = options_.model;
    services_.run_seed = static_cast<std::uint64_t>(spec_.run.seed);
    return std::make_unique<node::Worker>(
        spec_, registry_, services_,
        node::WorkerOptions{.rank = options_.rank, .device = device_, .group = group_.get()});
  }

  const NodeOptions& options_;
  const peers::Launch launch_;
  const Log log_;
  const at::Device device_;
  StrategyRegistry registry_;
  CallWatch watch_;
  std::atomic<bool> cancelled_{false};
  config::RunSpec spec_;
  HostServices services_;
  std::unique_ptr<peers::Group> group_;
  std::string message_;
};

}  // namespace

int node_command(const NodeOptions& options) {
  keep_large_blocks(Keeps::Everything);
  if (!is_node_name(options.name)) {
    throw Error(fmt::format(
        "'{}' is no name for a node: use 1 to 64 of the characters A-Z a-z 0-9 . _ - and begin with a letter or digit",
        options.name));
  }
  const auto launch = peers::launch_from();
  try {
    return NodeProcess(options, launch.value_or(peers::Launch())).run();
  } catch (const peers::OutOfStep& lost) {
    Log(LogLevel::Info, options.name + ": ")
        .error(fmt::format("{}. Start all processes of this node again: nothing that was sent is lost, and the work in "
                           "hand is done again",
                           lost.what()));
    return kExitOutOfStep;
  }
}

}  // namespace hansa
