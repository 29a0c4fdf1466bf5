#include "run_command.hpp"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <map>
#include <thread>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "config/load.hpp"
#include "coordination.hpp"
#include "coordinator_command.hpp"
#include "peers/launch.hpp"
#include "processes.hpp"
#include "run_report.hpp"
#include "simulation.hpp"
#include "stop_signal.hpp"
#include "trust_options.hpp"

namespace hansa {
namespace {

constexpr int kNodeRestarts = 5;  // of one node, by itself; then the run ends with a sentence

int say_stopped(const std::filesystem::path& run_dir) {
  std::cerr << fmt::format("stopped; go on with: hansa run --resume {}\n", run_dir.string());
  return kExitStopped;
}

int simulate(const OpenedPipeline& opened, const RunOptions& options) {
  const auto& signalled = stop_on_signals();
  std::atomic<bool> stop{false};
  const Log log;
  Simulation simulation(opened, options.run_dir / "nodes", log, stop);
  const auto how = options.resume ? RunDirectory::Open::Resume : RunDirectory::Open::Create;
  Coordination coordination({opened, options.run_dir, how, options.changed, stop,
                             [&](const auto& out, double rank, const auto& down) {
                               simulation.with_worker(
                                   [&](node::Worker& w) { w.write_initial(out, down, Durability::Process); }, rank);
                             },
                             [&](const auto& standing, const auto& down, const auto& set) {
                               Metrics metrics;
                               simulation.with_worker([&](node::Worker& w) {
                                 w.load(standing, down);
                                 metrics = w.evaluate(set.data);
                               });
                               return metrics;
                             }});
  simulation.connect(coordination.engine(), coordination.directory(), coordination.digests());
  std::jthread watch([&](std::stop_token done) {
    while (!done.stop_requested() && !signalled) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (signalled) stop = true;
  });
  const auto result = coordination.run();
  watch.request_stop();
  const bool failed = simulation.failure() != nullptr;
  simulation.finish();
  simulation.disconnect();
  if (failed) return 1;
  if (!result.message.empty()) log.info(result.message);
  return result.ending == coordinator::Ending::Stopped ? kExitStopped : 0;
}

class Federation {  // the processes of one run
 public:
  Federation(const OpenedPipeline& opened, const RunOptions& options) : opened_(opened), options_(options) {
    std::filesystem::create_directories(options.run_dir / "logs");
  }

  int run(const std::atomic<bool>& stop) {
    start_coordinator();
    while (!stop) {
      if (const auto code = coordinator_->poll()) return coordinator_ended(*code);
      if (address_.empty())
        find_address();
      else if (const auto problem = watch_nodes()) {
        std::cerr << "error: " << problem->sentence << '\n';
        stop_all();
        if (problem->code != 1) say_how_to_go_on();
        return problem->code;
      }
      watch_disk();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    stop_all();
    return kExitStopped;
  }

 private:
  void start_coordinator() {
    std::vector<std::string> arguments{this_program().string(), "coordinator", options_.pipeline.file.string(),
                                       "--run-dir", options_.run_dir.string()};
    if (options_.resume) arguments.push_back("--resume");
    if (options_.changed) arguments.push_back("--changed");
    for (const auto& set : options_.pipeline.set) arguments.insert(arguments.end(), {"--set", set});
    coordinator_.emplace(of_this_run(std::move(arguments)), std::filesystem::path());
  }

  void find_address() {
    const auto file = options_.run_dir / "address", lock = options_.run_dir / "lock";
    if (!std::filesystem::exists(lock) || read_file(lock) != fmt::format("{}\n", coordinator_->pid()))
      return;  // not ours yet
    if (!std::filesystem::exists(file)) return;
    address_ = read_file(file);
    while (!address_.empty() && address_.back() == '\n') address_.pop_back();
    for (const auto& node : opened_.spec.nodes) start_node(node);
  }

  void start_node(const config::NodeSpec& node) {
    std::vector<std::string> arguments{this_program().string(),
                                       "node",
                                       "--connect",
                                       address_,
                                       "--name",
                                       node.name,
                                       "--data",
                                       node.data.string(),
                                       "--model",
                                       opened_.spec.model_host.path.string(),
                                       "--state",
                                       (options_.run_dir / "nodes" / node.name).string()};
    if (node.rank > 0) arguments.insert(arguments.end(), {"--rank", fmt::format("{:g}", node.rank)});
    const auto& run = opened_.spec.run;
    arguments.insert(arguments.end(), {"--call-limit", fmt::format("{}", run.node_call_limit_seconds), "--call-grace",
                                       fmt::format("{}", run.node_call_grace_seconds)});
    const auto& device = node.device.empty() ? opened_.spec.model_host.device : node.device;
    arguments.insert(arguments.end(), {"--device", device});
    if (node.heldout) arguments.insert(arguments.end(), {"--heldout", node.heldout->string()});
    for (const auto& path : opened_.spec.plugin_path)
      arguments.insert(arguments.end(), {"--plugin-path", path.string()});
    nodes_.insert_or_assign(node.name, ChildProcess(of_this_run(std::move(arguments)), log_of(node.name)));
  }

  std::vector<std::string> of_this_run(std::vector<std::string> arguments) const {
    for (auto& argument : die_with_this_process()) arguments.push_back(std::move(argument));
    for (const auto& path : options_.pipeline.plugin_path)
      arguments.insert(arguments.end(), {"--plugin-path", path.string()});
    for (auto& argument : trust_arguments(opened_.spec.plugins)) arguments.push_back(std::move(argument));
    return arguments;
  }

  std::filesystem::path log_of(const std::string& name) const { return options_.run_dir / "logs" / (name + ".log"); }

  struct Problem {
    int code = 1;  // what the run ends with
    std::string sentence;
  };
  std::optional<Problem> watch_nodes() {
    for (const auto& node : opened_.spec.nodes) {
      const auto found = nodes_.find(node.name);
      const auto code = found == nodes_.end() ? std::nullopt : found->second.poll();
      if (!code) continue;
      if (*code == 0) {
        nodes_.erase(found);
        continue;
      }
      if (*code < 128 && *code != kExitStopped) {  // stopped by a signal of its own: started again, as a killed one is
        const auto log = log_of(node.name).string();
        if (*code == kExitCrashed || *code == kExitHung)  // the log's last line names the plugin
          return Problem{*code, fmt::format("node '{}' ended with code {}, {}; its log is {}", node.name, *code,
                                            last_error_in(log_of(node.name)), log)};
        return Problem{1, fmt::format("node '{}' ended with code {}; its log is {}", node.name, *code, log)};
      }
      if (++restarts_[node.name] > kNodeRestarts) {
        return Problem{1, fmt::format("node '{}' was killed {} times (signal {}); its log is {}", node.name,
                                      kNodeRestarts + 1, *code - 128, log_of(node.name).string())};
      }
      start_node(node);
    }
    return std::nullopt;
  }

  // Nodes log into the run directory too, so on a full disk nobody hears them.
  void watch_disk() {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_look_) return;
    next_look_ = now + std::chrono::seconds(1);
    std::error_code unknown;
    const auto room = std::filesystem::space(options_.run_dir, unknown).available;
    const bool full = !unknown && room == 0;
    if (full && !disk_full_) {
      std::cerr << fmt::format(
          "warning: No space left on the disk of {}: nothing accepted is lost, and the run goes on when there is "
          "room\n",
          options_.run_dir.string());
    }
    disk_full_ = full;
  }

  int coordinator_ended(int code) {
    for (int i = 0; i < 300 && code == 0 && watching(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    nodes_.clear();
    if (code == kExitCrashed || code == kExitHung) {
      say_how_to_go_on();
      return code;
    }
    if (code >= 128) {
      std::cerr << fmt::format(
          "error: the coordinator was killed (signal {}); nothing accepted is lost: hansa run --resume {}\n",
          code - 128, options_.run_dir.string());
      return 1;
    }
    return code;
  }
  void say_how_to_go_on() const {
    std::cerr << fmt::format(
        "help: go on with another plugin, hansa run --resume {0} --set aggregator.use=…, or without a node, hansa run "
        "--resume {0} --without-node NAME\n",
        options_.run_dir.string());
  }
  // What the node's process said of its end.
  static std::string last_error_in(const std::filesystem::path& log) {
    const auto text = read_file(log);
    constexpr std::string_view kMark = "error: ";
    const auto at = text.rfind(kMark);
    if (at == std::string::npos) return "and left no reason";
    return text.substr(at + kMark.size(), text.find('\n', at) - at - kMark.size());
  }
  bool watching() {  // nodes that are still on their way out
    for (auto it = nodes_.begin(); it != nodes_.end();) it = it->second.poll() ? nodes_.erase(it) : std::next(it);
    return !nodes_.empty();
  }
  void stop_all() {
    for (auto& [name, node] : nodes_) node.terminate();
    nodes_.clear();
    coordinator_->terminate();
    coordinator_->wait();
  }

  const OpenedPipeline& opened_;
  const RunOptions& options_;
  std::string address_;
  std::optional<ChildProcess> coordinator_;
  std::map<std::string, ChildProcess> nodes_;
  std::map<std::string, int> restarts_;
  std::chrono::steady_clock::time_point next_look_{};
  bool disk_full_ = false;
};

std::filesystem::path fresh_run_dir(const config::RunSpec& spec) {
  const auto now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return std::filesystem::path("runs") / fmt::format("{}-{:%Y%m%d-%H%M%S}", spec.run.name, local);
}

// What a resumed run is changed to stands in its config.toml from now on; the one before is kept beside it.
void rewrite_config(OpenedPipeline& opened, const RunOptions& options) {
  auto& nodes = opened.spec.nodes;
  for (const auto& name : options.without_nodes) {
    const auto before = nodes.size();
    std::erase_if(nodes, [&](const auto& node) { return node.name == name; });
    if (nodes.size() == before) throw Error(fmt::format("{} has no node '{}'", options.run_dir.string(), name));
  }
  if (nodes.empty()) throw Error("without these nodes nobody is left to train");
  const RunDirectory directory(options.run_dir, RunDirectory::Open::Resume);  // nobody else may be using it
  auto before = directory.config();
  before.replace_extension(".before.toml");
  std::filesystem::copy_file(directory.config(), before, std::filesystem::copy_options::overwrite_existing);
  write_file_atomically(directory.config(), config::to_resolved_toml(opened.spec), Durability::Power);
}

}  // namespace

int run_command(RunOptions options) {
  const auto& stop = stop_on_signals();
  if (peers::launch_from())
    throw Error(
        "hansa run starts the nodes by itself, one process each; where a node is to have several, start "
        "`hansa coordinator`, and each `hansa node` by torchrun or srun");
  if (!options.device.empty()) options.pipeline.set.push_back("model.device=" + options.device);
  if (options.resume) {
    if (!RunDirectory::holds_a_run(options.run_dir)) {
      throw Error(fmt::format("{} holds no run; start one with: hansa run CONFIG --run-dir {}",
                              options.run_dir.string(), options.run_dir.string()));
    }
    options.pipeline.file = options.run_dir / "config.toml";
  }
  int exit_code = 0;
  auto opened = open_pipeline(options.pipeline, exit_code);
  if (!opened) return exit_code;
  if (options.resume && (!options.pipeline.set.empty() || !options.without_nodes.empty())) {
    rewrite_config(*opened, options);
    options.changed = true;
    options.pipeline.set.clear();  // they stand in config.toml now
    if (!(opened = open_pipeline(options.pipeline, exit_code))) return exit_code;
  }
  if (options.run_dir.empty()) options.run_dir = fresh_run_dir(opened->spec);
  options.run_dir = std::filesystem::absolute(options.run_dir);
  std::cerr << fmt::format("run directory: {}\n", options.run_dir.string());
  const int code = opened->spec.simulation ? simulate(*opened, options) : Federation(*opened, options).run(stop);
  if (code == kExitStopped) return say_stopped(options.run_dir);
  if (code != 0) return code;
  return report_run(*opened, options.run_dir, options.pipeline.plugin_path, stop);
}

}  // namespace hansa
