#include "simulation.hpp"

#include <future>

#include <fmt/format.h>

#include "coordination.hpp"
#include "devices/devices.hpp"

namespace hansa {
namespace {

constexpr std::uint64_t kNothing = std::numeric_limits<std::uint64_t>::max();

wire::Report report_of(const TrainResult& result) {
  wire::Report report{result.examples, result.tokens, static_cast<std::uint32_t>(result.steps), 0, {}};
  for (const auto& [name, value] : result.metrics) report.metrics.push_back({name, value});
  return report;
}

// Stands for the checksums that a node would send along.
wire::BlobInfo stream_into(wire::UploadTarget& target, const pipeline::EncodedUpdate& update) {
  RunningChecksum sum;
  std::uint64_t offset = 0;
  std::optional<wire::Fault> refused;
  update.stream([&](std::span<const std::byte> bytes) {
    sum.add(bytes);
    if (offset >= target.held() && !refused) refused = target.write(offset, bytes);
    offset += bytes.size();
  });
  if (refused) throw Error(refused->message);
  return {sum.value(), offset, kPacketVersion};
}

}  // namespace

Simulation::Simulation(const OpenedPipeline& opened, const std::filesystem::path& state, const Log& log,
                       std::atomic<bool>& stop)
    : opened_(opened), log_(log), stop_(stop), state_(state), thread_([this](std::stop_token token) { loop(token); }) {}

Simulation::~Simulation() { finish(); }

std::exception_ptr Simulation::failure() {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void Simulation::loop(std::stop_token token) {
  CallWatch watch(node_limits(opened_.spec));
  const HostServices services{&log_, &stop_, static_cast<std::uint64_t>(opened_.spec.run.seed), {}, &watch};
  std::map<Which, std::unique_ptr<node::Worker>> workers;
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, token, [this] { return !jobs_.empty(); });
      if (token.stop_requested()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    try {
      auto& worker = workers[job.worker];
      if (!worker) {
        const auto& [rank, device] = job.worker;
        worker = std::make_unique<node::Worker>(
            opened_.spec, *opened_.registry, services,
            node::WorkerOptions{.rank = rank,
                                .device = device.empty() ? std::nullopt : std::optional(require_device(device))});
      }
      job.work(*worker);
    } catch (const std::exception& failed) {
      log_.error(failed.what());
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stop_ = true;  // a simulation is for study: a node that fails is a mistake to be seen, not a fault to be borne
    }
  }
}

void Simulation::post(const Which& which, std::function<void(node::Worker&)> work) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({which, std::move(work)});
  }
  changed_.notify_one();
}

void Simulation::with_worker(const std::function<void(node::Worker&)>& job, double rank) {
  auto done = std::make_shared<std::promise<void>>();
  auto finished = done->get_future();
  post({rank, {}}, [&job, done](node::Worker& worker) {
    try {
      job(worker);
      done->set_value();
    } catch (...) {  // carried to the thread that waits
      done->set_exception(std::current_exception());
    }
  });
  while (finished.wait_for(std::chrono::milliseconds(200)) != std::future_status::ready) {
    if (auto failed = failure()) std::rethrow_exception(failed);  // the worker could not be made
  }
  finished.get();
}

void Simulation::connect(coordinator::Engine& engine, const RunDirectory& directory, const Digests& digests) {
  directory_ = &directory;
  wire::Hello hello;
  hello.build = build_text();
  hello.base_digest = digests.base;
  hello.tokenizer_digest = digests.tokenizer;
  hello.plugins = shared_plugins(opened_.spec, *opened_.registry);
  for (const auto& spec : opened_.spec.nodes) {
    auto node = std::make_unique<VirtualNode>();
    node->silo = {spec.name, spec.data, spec.heldout, state_ / spec.name};
    node->worker = {spec.rank, spec.device};
    hello.rank = spec.rank;
    node->holds = kNothing;
    hello.node = spec.name;
    auto joined = engine.join(hello, {"simulation", {}, nullptr});
    if (const auto* fault = std::get_if<wire::Fault>(&joined)) throw Error(fault->message);
    node->session = std::move(std::get<wire::Joined>(joined).session);
    nodes_.push_back(std::move(node));
  }
  for (auto& node : nodes_) ask(*node);
}

void Simulation::finish() {
  thread_.request_stop();
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Simulation::disconnect() {
  for (auto& node : nodes_) node->session->disconnected();
}

void Simulation::ask(VirtualNode& node) {
  node.session->next_work(node.holds, [this, &node](wire::Answer<wire::WorkOffer> answer) {
    // A fault ends this node's part: the run is over, or stopped.
    if (auto* offer = std::get_if<wire::WorkOffer>(&answer)) {
      post(node.worker, [this, &node, work = std::move(*offer)](node::Worker& worker) { serve(node, work, worker); });
    }
  });
}

// A reply may come while the engine holds its mutex: the next question waits for the worker's thread.
void Simulation::ask_later(VirtualNode& node) {
  post(node.worker, [this, &node](node::Worker&) { ask(node); });
}

void Simulation::serve(VirtualNode& node, const wire::WorkOffer& offer, node::Worker& worker) {
  if (stop_) return;
  for (const auto& settled : offer.info.settled) worker.settled(node.silo, settled.token, settled.applied);
  for (const auto& source : offer.sources)
    source->read(0, source->size());  // counted as a download; the file lies here already
  node.holds = offer.info.base_epoch;
  const auto standing = coordinator::standing_of(*directory_, offer.info.base_epoch, offer.info.view);
  const auto order = pipeline::work_order_from_json(offer.info.exchange);
  if (offer.info.task == wire::Task::Train) {
    try {
      deliver(node, offer, worker.train(node.silo, standing, order, offer.info.token));
    } catch (const std::exception&) {
      if (stop_) return;  // interrupted half-way: nothing was sent
      throw;
    }
  } else {
    wire::Report report;
    worker.load(standing, order.exchange.down, &node.silo, offer.info.round);
    for (const auto& [name, value] : worker.evaluate(*node.silo.heldout)) report.metrics.push_back({name, value});
    offer.upload->commit({}, report, [this, &node](wire::Answer<wire::Receipt>) { ask_later(node); });
  }
}

void Simulation::deliver(VirtualNode& node, const wire::WorkOffer& offer, const node::Trained& trained) {
  const auto blob = stream_into(*offer.upload, trained.update);
  offer.upload->commit(blob, report_of(trained.result), [this, &node](wire::Answer<wire::Receipt> answer) {
    if (const auto* fault = std::get_if<wire::Fault>(&answer)) log_.warning(fault->message);
    ask_later(node);
  });
}

}  // namespace hansa
