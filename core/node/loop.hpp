// A node process's life: join, wait for work, pull the version, train or evaluate, upload, until the coordinator says that
// the run is over. Blocking; the process's main thread. What it keeps on disk: the version that it holds, and pending state.
// Killed at any moment and started again, it does the same work again with the same result: the order of data is a function
// of (seed, node, round).
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/log.hpp"
#include "node/company.hpp"
#include "node/holdings.hpp"
#include "node/worker.hpp"
#include "wire/client.hpp"

namespace hansa::node {

struct LoopSetup {
  std::string address;
  wire::Hello hello;
  Silo silo;
  wire::ClientOptions client;
  const Log& log;
  const std::atomic<bool>& stop;  // the process was asked to end
  std::atomic<bool>& cancelled;   // what components poll: set here on stop and when the coordinator takes work back
  // Makes the worker once the pipeline is known; `canonical` is the coordinator's JSON.
  MakeWorker make_worker;
  Company* company = nullptr;  // the node's other processes; null: there are none
};

struct LoopResult {
  bool finished = false;  // the run is complete, or its budget is spent
  std::string message;
};

class Loop {
 public:
  explicit Loop(LoopSetup);
  LoopResult run();
  // Any thread, while components work: passes progress on, and notices that the work was taken back.
  void progress(wire::Stage, std::uint64_t done, std::uint64_t total);

 private:
  enum class Step { Again, Reconnect };
  void work_on(wire::Offer);
  bool fetch_version(const wire::Offer&);
  void train(wire::Offer);
  void evaluate(wire::Offer);
  bool send(wire::Offer, const pipeline::EncodedUpdate&, const wire::Report&);
  void pause(std::uint32_t ms);  // ends early when the process is asked to end

  LoopSetup setup_;
  wire::Client client_;
  std::unique_ptr<Worker> worker_;
  std::string pipeline_;  // digest of the one that the worker was made for
  Holdings holdings_;
  double seconds_download_ = 0;  // of the work in hand
};

}  // namespace hansa::node
