// What coordinating needs beside the engine, the same for a coordinator process and a simulation: the run directory with its
// first version, the stages, the progress shown to a person. Main thread.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "coordinator/engine.hpp"
#include "opened.hpp"
#include "report/progress.hpp"

namespace hansa {

struct CoordinationSetup {
  const OpenedPipeline& opened;
  std::filesystem::path run_dir;
  RunDirectory::Open how;
  bool changed = false;  // resumed with another pipeline or without a node
  const std::atomic<bool>& stop;
  // Writes version 0 at this rank under the given name; called only where it is missing.
  std::function<void(const std::filesystem::path&, double rank, const std::vector<Channel>& down)> write_initial;
  std::function<Metrics(const fold::Standing&, const std::vector<Channel>& down, const config::EvaluationSection::Set&)>
      own_evaluation;
};

class Coordination {
 public:
  explicit Coordination(CoordinationSetup);
  ~Coordination();
  coordinator::Engine& engine() { return *engine_; }
  const RunDirectory& directory() const { return directory_; }
  const Digests& digests() const { return digests_; }
  coordinator::Result run();  // shows progress; ends with the bar finished

 private:
  void write_first_versions();
  CoordinationSetup setup_;
  SteadyClock clock_;
  Log log_;
  RunDirectory directory_;
  Digests digests_;
  CallWatch watch_;
  pipeline::Stages stages_;
  std::unique_ptr<ProgressBar> bar_;
  std::unique_ptr<coordinator::Engine> engine_;
};

CallWatch::Limits node_limits(const config::RunSpec&);  // of calls that train and evaluate, wherever they are made
RoundPlan first_plan();
// What stands between rounds, for nodes of this rank: whose the channels of a version are.
std::vector<Channel> down_channels(const OpenedPipeline&, double rank = 0);
// The view of a version that nodes of this rank hold: for standing_of().
std::string view_of(const OpenedPipeline&, double rank);
bool has_personal_part(const OpenedPipeline&, double rank);  // tensors that stay on such a node

}  // namespace hansa
