// A node of several processes: the first talks with the coordinator (loop.hpp) and tells the others what to do; each trains its
// part of every batch, the first alone encodes and sends. What the others need lies with them as copies of the first's files:
// the version, and what the silo keeps between rounds. Each process's main thread. Throws peers::OutOfStep where the processes
// cannot go on together.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/log.hpp"
#include "fold/standing.hpp"
#include "node/worker.hpp"
#include "peers/group.hpp"

namespace hansa::node {

using MakeWorker = std::function<std::unique_ptr<Worker>(const std::string& canonical)>;

class Company {  // the first process's side
 public:
  explicit Company(peers::Group& group) : group_(group) {}
  // Everywhere. Throws in all processes where one cannot.
  std::unique_ptr<Worker> make_worker(const std::string& canonical, const MakeWorker&);
  // The others load the same and enter Worker::assist(); Worker::train() has to be called next.
  void begin_training(const Silo&, const fold::Standing&, const std::string& order);
  void end(const std::string& message, int exit_code);  // they end, with this exit code

 private:
  peers::Group& group_;
  std::map<std::string, std::uint64_t> copied_;  // what the others hold: names and digests
};

class Assistant {  // another process's side
 public:
  // silo.state is this process's own folder.
  Assistant(peers::Group& group, Silo silo, const Log& log, MakeWorker make_worker);
  int run();  // until the first process ends; its exit code

 private:
  void take_pipeline(const std::string& canonical);
  void train(const std::string& message);
  std::filesystem::path copy_of(const std::string& name) const;
  peers::Group& group_;
  Silo silo_;
  const Log& log_;
  MakeWorker make_worker_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace hansa::node
