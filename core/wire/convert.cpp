#include "wire/convert.hpp"

namespace hansa::wire {
namespace {

template <class Builder>
void write_metrics(Builder out, const std::vector<Metric>& metrics) {
  auto list = out.initMetrics(metrics.size());
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    list[i].setName(text_of(metrics[i].name));
    list[i].setValue(metrics[i].value);
  }
}

template <class Reader>
std::vector<Metric> read_metrics(Reader in) {
  std::vector<Metric> metrics;
  for (auto metric : in.getMetrics()) metrics.push_back({string_of(metric.getName()), metric.getValue()});
  return metrics;
}

void write(rpc::Version::Builder out, Version version) {
  out.setMajor(version.major);
  out.setMinor(version.minor);
}
Version read(rpc::Version::Reader in) { return {in.getMajor(), in.getMinor()}; }

}  // namespace

std::string_view name_of(FaultCode code) {
  switch (code) {
    case FaultCode::None: return "none";
    case FaultCode::Busy: return "busy";
    case FaultCode::NotSelected: return "not selected";
    case FaultCode::StaleRound: return "stale round";
    case FaultCode::BadChecksum: return "bad checksum";
    case FaultCode::BadPayload: return "bad payload";
    case FaultCode::ProtocolVersion: return "protocol version";
    case FaultCode::PluginMismatch: return "plugin mismatch";
    case FaultCode::BaseMismatch: return "base mismatch";
    case FaultCode::Unauthorised: return "unauthorised";
    case FaultCode::BudgetSpent: return "budget spent";
    case FaultCode::Finished: return "finished";
    case FaultCode::UnknownToken: return "unknown token";
    case FaultCode::TooLarge: return "too large";
    case FaultCode::NameTaken: return "name taken";
    case FaultCode::Cancelled: return "cancelled";
  }
  return "unknown";
}

void write(rpc::Fault::Builder out, const Fault& fault) {
  out.setCode(static_cast<rpc::Fault::Code>(fault.code));
  out.setMessage(text_of(fault.message));
  out.setRetry(fault.retry);
  out.setAfterMs(fault.after_ms);
}

Fault read(rpc::Fault::Reader in) {
  return {static_cast<FaultCode>(in.getCode()), string_of(in.getMessage()), in.getRetry(), in.getAfterMs()};
}

void write(rpc::Hello::Builder out, const Hello& hello) {
  write(out.initProtocol(), hello.protocol);
  out.setNode(text_of(hello.node));
  out.setBuild(text_of(hello.build));
  out.setBaseDigest(text_of(hello.base_digest));
  out.setTokenizerDigest(text_of(hello.tokenizer_digest));
  auto plugins = out.initPlugins(hello.plugins.size());
  for (std::size_t i = 0; i < hello.plugins.size(); ++i) {
    plugins[i].setId(text_of(hello.plugins[i].id));
    plugins[i].setVersion(text_of(hello.plugins[i].version));
    plugins[i].setDigest(text_of(hello.plugins[i].digest));
  }
  auto resources = out.initResources();
  resources.setRamBytes(hello.resources.ram_bytes);
  resources.setGpuBytes(hello.resources.gpu_bytes);
  resources.setGpus(hello.resources.gpus);
  resources.setUplinkBytesPerSecond(hello.resources.uplink_bytes_per_second);
  out.setExamples(hello.examples);
  out.setRank(hello.rank);
}

Hello read(rpc::Hello::Reader in) {
  Hello hello{.protocol = read(in.getProtocol()),
              .node = string_of(in.getNode()),
              .build = string_of(in.getBuild()),
              .base_digest = string_of(in.getBaseDigest()),
              .tokenizer_digest = string_of(in.getTokenizerDigest()),
              .examples = in.getExamples(),
              .rank = in.getRank()};
  for (auto plugin : in.getPlugins()) {
    hello.plugins.push_back({string_of(plugin.getId()), string_of(plugin.getVersion()), string_of(plugin.getDigest())});
  }
  auto resources = in.getResources();
  hello.resources = {resources.getRamBytes(), resources.getGpuBytes(), resources.getGpus(),
                     resources.getUplinkBytesPerSecond()};
  return hello;
}

void write(rpc::Welcome::Builder out, const Welcome& welcome) {
  write(out.initProtocol(), welcome.protocol);
  out.setRunId(text_of(welcome.run_id));
  out.setNodeId(welcome.node_id);
  out.setChunkBytes(welcome.chunk_bytes);
  out.setHeartbeatMs(welcome.heartbeat_ms);
}

Welcome read(rpc::Welcome::Reader in) {
  return {read(in.getProtocol()), string_of(in.getRunId()), in.getNodeId(), in.getChunkBytes(), in.getHeartbeatMs()};
}

void write(rpc::BlobInfo::Builder out, const BlobInfo& info) {
  out.setXxh3High(info.xxh3.high);
  out.setXxh3Low(info.xxh3.low);
  out.setSize(info.size);
  out.setFormat(info.format);
}

BlobInfo read(rpc::BlobInfo::Reader in) {
  return {.xxh3 = {in.getXxh3High(), in.getXxh3Low()}, .size = in.getSize(), .format = in.getFormat()};
}

void write(rpc::Report::Builder out, const Report& report) {
  out.setExamples(report.examples);
  out.setTokens(report.tokens);
  out.setSteps(report.steps);
  out.setSeconds(report.seconds);
  write_metrics(out, report.metrics);
}

Report read(rpc::Report::Reader in) {
  return {in.getExamples(), in.getTokens(), in.getSteps(), in.getSeconds(), read_metrics(in)};
}

void write(rpc::Receipt::Builder out, const Receipt& receipt) {
  out.setRound(receipt.round);
  out.setAccepted(receipt.accepted);
  out.setReason(text_of(receipt.reason));
}

Receipt read(rpc::Receipt::Reader in) { return {in.getRound(), in.getAccepted(), string_of(in.getReason())}; }

void write(rpc::Progress::Builder out, const Progress& progress) {
  out.setStage(static_cast<rpc::Progress::Stage>(progress.stage));
  out.setDone(progress.done);
  out.setTotal(progress.total);
  write_metrics(out, progress.metrics);
}

Progress read(rpc::Progress::Reader in) {
  const auto stage = static_cast<Stage>(in.getStage());
  return {stage > Stage::Evaluating ? Stage::Idle : stage, in.getDone(), in.getTotal(), read_metrics(in)};
}

void write(rpc::Directive::Builder out, const Directive& directive) {
  switch (directive.what) {
    case Directive::What::CarryOn: return out.setCarryOn();
    case Directive::What::Stop: return out.setStop(text_of(directive.reason));
    case Directive::What::Extend: return out.setExtendMs(directive.extend_ms);
  }
}

Directive read(rpc::Directive::Reader in) {
  switch (in.which()) {
    case rpc::Directive::STOP: return {.what = Directive::What::Stop, .reason = string_of(in.getStop())};
    case rpc::Directive::EXTEND_MS: return {.what = Directive::What::Extend, .extend_ms = in.getExtendMs()};
    default: return {};
  }
}

void write(rpc::Work::Builder out, const WorkInfo& work) {
  out.setTask(static_cast<rpc::Work::Task>(work.task));
  out.setRound(work.round);
  out.setAttempt(work.attempt);
  out.setBaseEpoch(work.base_epoch);
  out.setView(text_of(work.view));
  out.setExchange(data_of(work.exchange));
  out.setPipelineDigest(text_of(work.pipeline_digest));
  out.setMaxUploadBytes(work.max_upload_bytes);
  out.setLeaseMs(work.lease_ms);
  out.setToken(data_of(work.token));
  auto settled = out.initSettled(work.settled.size());
  for (std::size_t i = 0; i < work.settled.size(); ++i) {
    settled[i].setToken(data_of(work.settled[i].token));
    settled[i].setApplied(work.settled[i].applied);
    settled[i].setReason(text_of(work.settled[i].reason));
  }
  auto pulls = out.initPull(work.pulls.size());
  for (std::size_t i = 0; i < work.pulls.size(); ++i) {
    pulls[i].setChannel(text_of(work.pulls[i].channel));
    pulls[i].setFromEpoch(work.pulls[i].from_epoch);
    pulls[i].setToEpoch(work.pulls[i].to_epoch);
    write(pulls[i].initInfo(), work.pulls[i].blob);
  }
}

WorkInfo read(rpc::Work::Reader in) {
  WorkInfo work{.task = static_cast<Task>(in.getTask()),
                .round = in.getRound(),
                .attempt = in.getAttempt(),
                .base_epoch = in.getBaseEpoch(),
                .view = string_of(in.getView()),
                .exchange = string_of(in.getExchange()),
                .pipeline_digest = string_of(in.getPipelineDigest()),
                .max_upload_bytes = in.getMaxUploadBytes(),
                .lease_ms = in.getLeaseMs(),
                .token = string_of(in.getToken())};
  for (auto settled : in.getSettled()) {
    work.settled.push_back({string_of(settled.getToken()), settled.getApplied(), string_of(settled.getReason())});
  }
  for (auto pull : in.getPull()) {
    work.pulls.push_back({string_of(pull.getChannel()), pull.getFromEpoch(), pull.getToEpoch(), read(pull.getInfo())});
  }
  return work;
}

}  // namespace hansa::wire
