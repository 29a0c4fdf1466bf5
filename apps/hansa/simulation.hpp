// All nodes of a run in one process: the same engine, the same codecs, spools and checks as between processes, with calls
// where the wire would be. One worker (per rank of adapters) serves the nodes in turn, on a thread of its own, because LibTorch counts threads per
// thread and the engine's thread folds meanwhile.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "coordinator/engine.hpp"
#include "node/worker.hpp"
#include "opened.hpp"

namespace hansa {

class Simulation {
 public:
  // `stop` is read and, when a node fails, set: then failure() says why.
  Simulation(const OpenedPipeline&, const std::filesystem::path& state, const Log&, std::atomic<bool>& stop);
  ~Simulation();

  // Runs on the worker's thread and waits for it; rethrows what it throws.
  void with_worker(const std::function<void(node::Worker&)>& job, double rank = 0);
  void connect(coordinator::Engine&, const RunDirectory&, const Digests&);  // all nodes join and ask for work
  void finish();                                                            // ends the worker, whatever is still queued
  void disconnect();                                                        // before the engine goes
  std::exception_ptr failure();

 private:
  using Which = std::pair<double, std::string>;  // rank and device; empty: the pipeline's
  struct VirtualNode {
    node::Silo silo;
    std::unique_ptr<wire::NodeSession> session;
    Which worker;
    std::uint64_t holds = 0;
  };
  void loop(std::stop_token);
  struct Job {
    Which worker;
    std::function<void(node::Worker&)> work;
  };
  void post(const Which&, std::function<void(node::Worker&)> work);
  void ask(VirtualNode&);
  void ask_later(VirtualNode&);
  void serve(VirtualNode&, const wire::WorkOffer&, node::Worker&);
  void deliver(VirtualNode&, const wire::WorkOffer&, const node::Trained&);

  const OpenedPipeline& opened_;
  const Log& log_;
  std::atomic<bool>& stop_;
  std::filesystem::path state_;
  const RunDirectory* directory_ = nullptr;
  std::vector<std::unique_ptr<VirtualNode>> nodes_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Job> jobs_;
  std::exception_ptr failure_;
  std::jthread thread_;
};

}  // namespace hansa
