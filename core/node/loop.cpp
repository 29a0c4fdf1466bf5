#include "node/loop.hpp"

#include <chrono>
#include <thread>

#include <fmt/format.h>

#include "pipeline/work_order.hpp"

namespace hansa::node {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

wire::Report report_of(const TrainResult& result, double seconds) {
  wire::Report report{result.examples, result.tokens, static_cast<std::uint32_t>(result.steps), seconds, {}};
  for (const auto& [name, value] : result.metrics) report.metrics.push_back({name, value});
  return report;
}

}  // namespace

Loop::Loop(LoopSetup setup)
    : setup_(std::move(setup)), client_(setup_.address, setup_.client), holdings_(setup_.silo.state) {}

LoopResult Loop::run() {
  auto joined = client_.join(setup_.hello);
  while (!setup_.stop) {
    if (const auto* fault = std::get_if<wire::Fault>(&joined)) {
      if (fault->code == wire::FaultCode::Finished || fault->code == wire::FaultCode::BudgetSpent)
        return {true, fault->message};
      if (!fault->retry) return {false, fault->message};
    }
    if (!std::holds_alternative<wire::Welcome>(joined)) {
      joined = client_.reconnect();
      continue;
    }
    auto work = client_.next_work(holdings_.epoch());
    if (std::holds_alternative<wire::LinkLost>(work)) {
      joined = client_.reconnect();
    } else if (const auto* fault = std::get_if<wire::Fault>(&work)) {
      if (fault->code == wire::FaultCode::Finished || fault->code == wire::FaultCode::BudgetSpent)
        return {true, fault->message};
      if (!fault->retry) return {false, fault->message};
      pause(fault->after_ms);
    } else {
      work_on(std::get<wire::Offer>(std::move(work)));
    }
  }
  client_.leave();
  return {false, "stopped"};
}

void Loop::work_on(wire::Offer offer) {
  setup_.cancelled = false;
  try {
    if (pipeline_ != offer.info.pipeline_digest) {  // the first work, or the run went on with another pipeline
      auto pipeline = client_.pipeline(offer.info.pipeline_digest);
      if (!std::holds_alternative<std::string>(pipeline)) return;
      const bool changed = worker_ != nullptr;
      worker_ = nullptr;  // the old one reads what the new one's spec replaces
      const auto& canonical = std::get<std::string>(pipeline);
      worker_ =
          setup_.company ? setup_.company->make_worker(canonical, setup_.make_worker) : setup_.make_worker(canonical);
      pipeline_ = offer.info.pipeline_digest;
      if (changed) {  // what is held may be encoded for the old one: this work comes again, with everything it needs
        holdings_.forget();
        return client_.drop_work();
      }
    }
    for (const auto& settled : offer.info.settled) worker_->settled(setup_.silo, settled.token, settled.applied);
    if (!fetch_version(offer)) return;
    if (offer.info.task == wire::Task::Train)
      train(offer);
    else
      evaluate(offer);
  } catch (const peers::OutOfStep&) {
    client_.drop_work();
    if (!setup_.stop) throw;        // when all are asked to end, some are gone first
  } catch (const DiskFull& full) {  // the work is offered again
    setup_.log.error(fmt::format("round {}: {}; trying again", offer.info.round, full.what()));
    client_.drop_work();
    pause(2000);
  } catch (const std::exception& failed) {
    if (setup_.cancelled || setup_.stop) return client_.drop_work();
    setup_.log.error(fmt::format("round {}: {}", offer.info.round, failed.what()));
    client_.abandon(offer, failed.what());
    if (!worker_) throw;  // without a worker no later round can go better
  }
}

bool Loop::fetch_version(const wire::Offer& offer) {
  const auto start = std::chrono::steady_clock::now();
  if (holdings_.epoch() == Holdings::kNothing) holdings_.forget();
  for (std::size_t pull = 0; pull < offer.info.pulls.size(); ++pull) {
    const auto& info = offer.info.pulls[pull];
    const bool whole = holdings_.take(info, [&](const Holdings::WriteAt& write) {
      wire::DownloadState state;
      const auto sink = [&](std::uint64_t offset, std::span<const std::byte> bytes) {
        write(offset, bytes);
        progress(wire::Stage::Downloading, offset + bytes.size(), info.blob.size);
      };
      return std::holds_alternative<wire::BlobInfo>(client_.download(offer, pull, state, sink));
    });
    if (!whole) {
      client_.drop_work();
      return false;  // the link broke or the work was taken back: ask again
    }
  }
  holdings_.reached(offer.info.base_epoch);
  seconds_download_ = seconds_since(start);
  return true;
}

void Loop::train(wire::Offer offer) {
  const auto order = pipeline::work_order_from_json(offer.info.exchange);
  const auto start = std::chrono::steady_clock::now();
  progress(wire::Stage::Training, 0, 0);
  if (setup_.company) setup_.company->begin_training(setup_.silo, holdings_.standing(), offer.info.exchange);
  const auto trained = worker_->train(setup_.silo, holdings_.standing(), order, offer.info.token);
  auto report = report_of(trained.result, seconds_since(start));
  report.metrics.push_back({"seconds_download", seconds_download_});
  report.metrics.push_back({"seconds_train", trained.seconds_train});
  report.metrics.push_back({"seconds_encode", trained.seconds_encode});
  const auto token = offer.info.token;
  progress(wire::Stage::Uploading, 0, trained.update.size());
  while (!send(std::move(offer), trained.update, report)) {
    if (setup_.stop) return;
    auto joined = client_.reconnect();
    if (!std::holds_alternative<wire::Welcome>(joined)) continue;
    auto resumed = client_.resume(token);
    if (std::holds_alternative<wire::Fault>(resumed))
      return client_.drop_work();  // the round went on without this node
    if (auto* again = std::get_if<wire::Offer>(&resumed)) offer = std::move(*again);
  }
}

// False: the link broke on the way.
bool Loop::send(wire::Offer offer, const pipeline::EncodedUpdate& update, const wire::Report& report) {
  if (!offer.handles) return false;
  auto stream = client_.start_upload(offer);
  update.stream([&](std::span<const std::byte> bytes) { stream.write_stable(bytes); });
  const auto outcome = stream.commit(report, kPacketVersion);
  if (const auto* receipt = std::get_if<wire::Receipt>(&outcome)) {
    if (!receipt->accepted)
      setup_.log.warning(fmt::format("round {}: the update was refused: {}", receipt->round, receipt->reason));
    return true;
  }
  if (const auto* fault = std::get_if<wire::Fault>(&outcome)) {
    setup_.log.warning(fmt::format("round {}: {}", offer.info.round, fault->message));
    if (fault->retry && !setup_.stop) {
      pause(std::max(fault->after_ms, 100u));
      return false;
    }
    client_.drop_work();
    return true;
  }
  return false;
}

void Loop::evaluate(wire::Offer offer) {
  progress(wire::Stage::Evaluating, 0, 0);
  const auto start = std::chrono::steady_clock::now();
  wire::Report report;
  if (setup_.silo.heldout) {
    const auto order = pipeline::work_order_from_json(offer.info.exchange);
    worker_->load(holdings_.standing(), order.exchange.down, &setup_.silo, offer.info.round);
    for (const auto& [name, value] : worker_->evaluate(*setup_.silo.heldout)) report.metrics.push_back({name, value});
  }
  report.seconds = seconds_since(start);
  auto stream = client_.start_upload(offer);
  const auto outcome = stream.commit(report);
  if (!std::holds_alternative<wire::Receipt>(outcome)) client_.drop_work();  // it is offered again
}

void Loop::pause(std::uint32_t ms) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
  while (!setup_.stop && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

void Loop::progress(wire::Stage stage, std::uint64_t done, std::uint64_t total) {
  client_.set_progress({stage, done, total, {}});
  if (setup_.stop || client_.stopped()) setup_.cancelled = true;
}

}  // namespace hansa::node
