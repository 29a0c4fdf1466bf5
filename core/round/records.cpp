#include "round/records.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "round/json.hpp"

namespace hansa::records {
namespace {

using nlohmann::json;

json facts_to_json(const NodeFacts& facts) {
  return {{"node", facts.node},
          {"examples", facts.examples},
          {"rank", real_to_json(facts.rank)},
          {"uplink", real_to_json(facts.uplink_bytes_per_second)},
          {"last_seen", facts.last_seen}};
}
NodeFacts facts_from_json(const json& from) {
  return {from.at("node"), from.at("examples"), real_from_json(from.at("rank")), real_from_json(from.at("uplink")),
          from.at("last_seen")};
}

json claims_to_json(const Claims& claims) {
  json metrics = json::array();
  for (const auto& [name, value] : claims.metrics) metrics.push_back({name, real_to_json(value)});
  return {{"examples", claims.examples},
          {"tokens", claims.tokens},
          {"steps", claims.steps},
          {"seconds", real_to_json(claims.seconds)},
          {"metrics", std::move(metrics)}};
}
Claims claims_from_json(const json& from) {
  Claims claims{from.at("examples"), from.at("tokens"), from.at("steps"), real_from_json(from.at("seconds")), {}};
  for (const auto& pair : from.at("metrics")) {
    claims.metrics.emplace_back(pair.at(0).get<std::string>(), real_from_json(pair.at(1)));
  }
  return claims;
}

json upload_to_json(const Upload& upload) {
  return {{"size", upload.size},
          {"xxh3", upload.checksum.hex()},
          {"claims", claims_to_json(upload.claims)},
          {"norm", real_to_json(upload.norm)},
          {"clip_factor", real_to_json(upload.clip_factor)},
          {"accepted", upload.accepted},
          {"reason", upload.reason}};
}
Upload upload_from_json(const json& from) {
  return {from.at("size"),
          Checksum::from_hex(from.at("xxh3").get<std::string>()),
          claims_from_json(from.at("claims")),
          real_from_json(from.at("norm")),
          real_from_json(from.at("clip_factor")),
          from.at("accepted"),
          from.at("reason")};
}

json plan_to_json(const RoundPlan& plan) {
  json cohort = json::array();
  for (const auto& facts : plan.cohort) cohort.push_back(facts_to_json(facts));
  return {{"round", plan.round},
          {"attempt", plan.attempt},
          {"base", plan.base},
          {"population", plan.population},
          {"expected_cohort", real_to_json(plan.expected_cohort)},
          {"sampling_rate", real_to_json(plan.sampling_rate)},
          {"adjacency", static_cast<int>(plan.adjacency)},
          {"cohort", std::move(cohort)}};
}
RoundPlan plan_from_json(const json& from) {
  RoundPlan plan{from.at("round"),
                 from.at("attempt"),
                 from.at("base"),
                 from.at("population"),
                 real_from_json(from.at("expected_cohort")),
                 real_from_json(from.at("sampling_rate")),
                 {}};
  for (const auto& facts : from.at("cohort")) plan.cohort.push_back(facts_from_json(facts));
  plan.adjacency = static_cast<Adjacency>(from.at("adjacency").get<int>());
  return plan;
}

// ---- one writer per record; the reader below has the same order

json write(const Joined& r) { return {{"type", "joined"}, {"facts", facts_to_json(r.facts)}}; }
json write(const Opened& r) { return {{"type", "opened"}, {"plan", plan_to_json(r.plan)}}; }
json write(const Received& r) {
  return {{"type", "received"},
          {"round", r.round},
          {"attempt", r.attempt},
          {"node", r.node},
          {"upload", upload_to_json(r.upload)}};
}
json write(const Closed& r) {
  return {{"type", "closed"}, {"round", r.round}, {"attempt", r.attempt}, {"cohort", r.cohort}};
}
json write(const Aborted& r) {
  return {{"type", "aborted"}, {"round", r.round}, {"attempt", r.attempt}, {"reason", r.reason}};
}
json write(const Released& r) {
  return {{"type", "released"},       {"round", r.round},       {"attempt", r.attempt},
          {"epoch", r.version.epoch}, {"size", r.version.size}, {"xxh3", r.version.checksum.hex()}};
}
json write(const EvaluationOpened& r) { return {{"type", "evaluation"}, {"epoch", r.epoch}, {"nodes", r.nodes}}; }
json write(const Evaluated& r) {
  return {{"type", "evaluated"}, {"epoch", r.epoch}, {"node", r.node}, {"claims", claims_to_json(r.claims)}};
}
json write(const EvaluationClosed& r) { return {{"type", "evaluation_closed"}, {"epoch", r.epoch}}; }
json write(const Finished&) { return {{"type", "finished"}}; }

Record read(const json& from) {
  const auto type = from.at("type").get<std::string>();
  if (type == "joined") return Joined{facts_from_json(from.at("facts"))};
  if (type == "opened") return Opened{plan_from_json(from.at("plan"))};
  if (type == "received") {
    return Received{from.at("round"), from.at("attempt"), from.at("node"), upload_from_json(from.at("upload"))};
  }
  if (type == "closed")
    return Closed{from.at("round"), from.at("attempt"), from.at("cohort").get<std::vector<NodeId>>()};
  if (type == "aborted") return Aborted{from.at("round"), from.at("attempt"), from.at("reason")};
  if (type == "released") {
    return Released{from.at("round"),
                    from.at("attempt"),
                    {from.at("epoch"), from.at("size"), Checksum::from_hex(from.at("xxh3").get<std::string>())}};
  }
  if (type == "evaluation") return EvaluationOpened{from.at("epoch"), from.at("nodes").get<std::vector<NodeId>>()};
  if (type == "evaluated") return Evaluated{from.at("epoch"), from.at("node"), claims_from_json(from.at("claims"))};
  if (type == "evaluation_closed") return EvaluationClosed{from.at("epoch")};
  if (type == "finished") return Finished{};
  throw Error(fmt::format(
      "the round journal has a record of the unknown type '{}': it was written by another version of hansa; "
      "resume with that version",
      type));
}

}  // namespace

std::string to_json(const Record& record) {
  // A node's free text (reasons, metric names) may be no UTF-8; a replaced character is better than a round that cannot close.
  return std::visit([](const auto& r) { return write(r); }, record)
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Record from_json(std::string_view text) {
  try {
    return read(json::parse(text));
  } catch (const nlohmann::json::exception& why) {
    throw Error(fmt::format(
        "the round journal has a record that cannot be read ({}): it was written by another version of hansa; "
        "resume with that version",
        why.what()));
  }
}

}  // namespace hansa::records
