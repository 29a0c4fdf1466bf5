#include "node/company.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "pipeline/work_order.hpp"

namespace hansa::node {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char *kPipeline = "pipeline", *kTrain = "train", *kEnd = "end";
constexpr const char* kState = "state";  // what a silo keeps between rounds, among the copies

// Makes it, or says why not; then all know.
std::unique_ptr<Worker> make_together(peers::Group& group, const std::string& canonical, const MakeWorker& make) {
  std::unique_ptr<Worker> made;
  std::string failure;
  try {
    made = make(canonical);
  } catch (const std::exception&) {
    failure = plain_message();
  }
  group.agree(failure);
  return made;
}

std::vector<std::filesystem::path> files_of(const fold::Standing& standing) {
  auto files = standing.packets;
  for (const auto& entry : standing.log) files.push_back(entry.file);
  return files;
}

}  // namespace

// ---- the first process

std::unique_ptr<Worker> Company::make_worker(const std::string& canonical, const MakeWorker& make) {
  auto message = Json{{"do", kPipeline}, {"pipeline", canonical}}.dump();
  group_.broadcast(message);
  return make_together(group_, canonical, make);
}

void Company::begin_training(const Silo& silo, const fold::Standing& standing, const std::string& order) {
  std::vector<std::pair<std::string, std::filesystem::path>> files;
  for (const auto& file : files_of(standing)) files.emplace_back(file.filename().string(), file);
  const auto state = Worker::kept_state_of(silo);
  const bool keeps = std::filesystem::exists(state);
  if (keeps) files.emplace_back(kState, state);

  Json message{{"do", kTrain}, {"order", order}, {"packets", Json::array()}, {"log", Json::array()}, {"keeps", keeps}};
  for (const auto& packet : standing.packets) message["packets"].push_back(packet.filename().string());
  for (const auto& entry : standing.log)
    message["log"].push_back({{"epoch", entry.epoch}, {"anew", entry.anew}, {"file", entry.file.filename().string()}});
  std::map<std::string, std::uint64_t> held;
  std::vector<std::filesystem::path> missing;
  auto& names = message["files"] = Json::array();
  for (const auto& [name, file] : files) {
    const auto digest = xxh3_64(MappedFile(file).bytes());
    held[name] = digest;
    const auto before = copied_.find(name);
    if (before != copied_.end() && before->second == digest) continue;
    names.push_back(name);
    missing.push_back(file);
  }
  auto text = message.dump();
  group_.broadcast(text);
  for (const auto& file : missing) group_.broadcast_file(file);
  copied_ = std::move(held);
}

void Company::end(const std::string& message, int exit_code) {
  auto text = Json{{"do", kEnd}, {"message", message}, {"code", exit_code}}.dump();
  group_.broadcast(text);
}

// ---- the others

Assistant::Assistant(peers::Group& group, Silo silo, const Log& log, MakeWorker make_worker)
    : group_(group), silo_(std::move(silo)), log_(log), make_worker_(std::move(make_worker)) {
  std::filesystem::remove_all(silo_.state);  // of an earlier process: nothing says that it is whole
  std::filesystem::create_directories(silo_.state);
}

std::filesystem::path Assistant::copy_of(const std::string& name) const {
  return name == kState ? Worker::kept_state_of(silo_) : silo_.state / ("copy-" + name);
}

int Assistant::run() {
  for (;;) {
    std::string text;
    group_.broadcast(text);
    const auto message = Json::parse(text);
    const auto what = message.at("do").get<std::string>();
    if (what == kEnd) {
      log_.info(message.at("message").get<std::string>());
      return message.at("code").get<int>();
    }
    if (what == kPipeline)
      take_pipeline(message.at("pipeline").get<std::string>());
    else
      train(text);
  }
}

void Assistant::take_pipeline(const std::string& canonical) {
  worker_ = nullptr;  // the old one reads what the new one's spec replaces
  try {
    worker_ = make_together(group_, canonical, make_worker_);
  } catch (const peers::OutOfStep&) {
    throw;
  } catch (const Error& refused) {  // by all: the first process says what comes of it
    log_.error(refused.what());
  }
}

void Assistant::train(const std::string& text) {
  const auto message = Json::parse(text);
  for (const auto& name : message.at("files")) group_.broadcast_file(copy_of(name.get<std::string>()));
  if (!message.at("keeps").get<bool>()) std::filesystem::remove(Worker::kept_state_of(silo_));
  fold::Standing standing;
  for (const auto& name : message.at("packets")) standing.packets.push_back(copy_of(name.get<std::string>()));
  for (const auto& entry : message.at("log"))
    standing.log.push_back(
        {entry.at("epoch").get<Epoch>(), entry.at("anew").get<bool>(), copy_of(entry.at("file").get<std::string>())});
  try {
    worker_->assist(silo_, standing, pipeline::work_order_from_json(message.at("order").get<std::string>()));
  } catch (const peers::OutOfStep&) {
    throw;
  } catch (const std::exception&) {
    if (!group_.gave_up()) throw;
    log_.warning(plain_message());
  }
}

}  // namespace hansa::node
