#include "coordinator_command.hpp"

#include <chrono>
#include <thread>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "allocator.hpp"
#include "coordination.hpp"
#include "node/worker.hpp"
#include "processes.hpp"
#include "stop_signal.hpp"
#include "trust_options.hpp"
#include "wire/server.hpp"

namespace hansa {
namespace {

void write_initial_in_child(const PipelineRequest& request, const std::filesystem::path& out, double rank) {
  std::vector<std::string> arguments{
      this_program().string(),  "initial-version", request.file.string(), "--out", out.string(), "--rank",
      fmt::format("{:g}", rank)};
  for (auto& argument : die_with_this_process()) arguments.push_back(std::move(argument));
  for (const auto& path : request.plugin_path) arguments.insert(arguments.end(), {"--plugin-path", path.string()});
  for (const auto& set : request.set) arguments.insert(arguments.end(), {"--set", set});
  for (auto& argument : trust_arguments(request.trust)) arguments.push_back(std::move(argument));
  ChildProcess child(std::move(arguments), {});
  if (child.wait() != 0) throw Error("the first version of the model could not be made; see above");
}

}  // namespace

int coordinator_command(const CoordinatorOptions& options) {
  keep_large_blocks(Keeps::Some);
  const auto& stop = stop_on_signals();
  int exit_code = 0;
  auto request = options.pipeline;
  request.nodes_elsewhere = true;
  const auto opened = open_pipeline(request, exit_code, options.warnings);
  if (!opened) return exit_code;
  // As in the nodes and in a simulation: sums depend on it, and idle threads of LibTorch's pool spin where nodes want to work.
  if (opened->spec.train.threads > 0) at::set_num_threads(static_cast<int>(opened->spec.train.threads));
  const Log log;
  std::function<Metrics(const fold::Standing&, const std::vector<Channel>&, const config::EvaluationSection::Set&)>
      own_evaluation;
  CallWatch watch(node_limits(opened->spec));
  std::unique_ptr<node::Worker> worker;  // only where the coordinator has held-out text of its own
  if (!opened->spec.evaluation.sets.empty()) {
    own_evaluation = [&](const fold::Standing& standing, const std::vector<Channel>& down,
                         const config::EvaluationSection::Set& set) {
      if (!worker)
        worker =
            std::make_unique<node::Worker>(opened->spec, *opened->registry, HostServices{&log, &stop, 0, {}, &watch});
      worker->load(standing, down);
      return worker->evaluate(set.data);
    };
  }
  Coordination coordination(
      {*opened, options.run_dir, options.resume ? RunDirectory::Open::Resume : RunDirectory::Open::Create,
       options.changed, stop,
       [&](const auto& out, double rank, const auto&) { write_initial_in_child(options.pipeline, out, rank); },
       own_evaluation});
  wire::Server server(coordination.engine(),
                      {options.listen.empty() ? opened->spec.network.listen : options.listen,
                       options.insecure_plaintext ? wire::Exposure::PlaintextAnywhere : wire::Exposure::LocalOnly});
  const auto address = options.run_dir / "address";
  write_file_atomically(address, server.address() + "\n", Durability::Process);
  const auto result = coordination.run();
  // Nodes hear that it is over before the door closes.
  for (int i = 0; i < 200 && !stop && !coordination.engine().everybody_left(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  server.stop();
  std::filesystem::remove(address);
  if (!result.message.empty()) log.info(result.message);
  return result.ending == coordinator::Ending::Stopped ? kExitStopped : 0;
}

int initial_version_command(PipelineRequest request, const std::filesystem::path& out, double rank) {
  request.nodes_elsewhere = true;
  int exit_code = 0;
  const auto opened = open_pipeline(request, exit_code, Warnings::Hidden);
  if (!opened) return exit_code;
  const Log log;
  CallWatch watch(node_limits(opened->spec));
  node::Worker worker(opened->spec, *opened->registry,
                      {&log, nullptr, static_cast<std::uint64_t>(opened->spec.run.seed), {}, &watch},
                      {.rank = rank, .device = at::kCPU});  // computes nothing: the same numbers on every machine
  worker.write_initial(out, down_channels(*opened, rank), Durability::Power);
  return 0;
}

}  // namespace hansa
