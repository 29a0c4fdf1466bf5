#include "round/ledger.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "round/json.hpp"

namespace hansa {
namespace {

using nlohmann::json;

json event_to_json(const SpendEvent& event) {
  return {{"mechanism", event.mechanism},
          {"noise_multiplier", real_to_json(event.noise_multiplier)},
          {"sampling_rate", real_to_json(event.sampling_rate)},
          {"count", event.count},
          {"adjacency", event.adjacency}};
}
SpendEvent event_from_json(const json& from) {
  return {from.at("mechanism"), real_from_json(from.at("noise_multiplier")), real_from_json(from.at("sampling_rate")),
          from.at("count"), from.at("adjacency")};
}

}  // namespace

Ledger::Ledger(std::filesystem::path path)
    : journal_(std::move(path), Durability::Power, Journal::Tail::CutUnfinished) {
  try {
    for (const auto& text : journal_.take_records()) {
      const auto record = json::parse(text);
      const auto type = record.at("type").get<std::string>();
      const Round round = record.at("round");
      if (type == "charged") {
        apply_charge(round, event_from_json(record.at("event")));
      } else if (type == "released") {
        apply_released(round);
      } else {
        throw Error(
            fmt::format("{} has a record of the unknown type '{}': resume with the version of hansa that wrote it",
                        journal_.path().string(), type));
      }
    }
  } catch (const json::exception& why) {
    throw Error(fmt::format("{} has a record that cannot be read ({}): resume with the version of hansa that wrote it",
                            journal_.path().string(), why.what()));
  }
}

Ledger::Charge Ledger::would_be(Round round, const SpendEvent& event) const {
  const bool charged = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.round == round && !entry.released && entry.event == event;
  });
  return charged ? Charge::Repeated : Charge::New;
}

Ledger::Charge Ledger::charge(Round round, std::uint32_t attempt, const SpendEvent& event) {
  const auto kind = would_be(round, event);
  if (kind == Charge::Repeated) return kind;
  journal_.append(
      json{{"type", "charged"}, {"round", round}, {"attempt", attempt}, {"event", event_to_json(event)}}.dump());
  apply_charge(round, event);
  return kind;
}

void Ledger::released(Round round, std::uint32_t attempt, Epoch epoch) {
  journal_.append(json{{"type", "released"}, {"round", round}, {"attempt", attempt}, {"epoch", epoch}}.dump());
  apply_released(round);
}

bool Ledger::was_released(Round round) const { return released_.contains(round); }

void Ledger::apply_charge(Round round, SpendEvent event) {
  events_.push_back(event);
  entries_.push_back({round, std::move(event), false});
}

void Ledger::apply_released(Round round) {
  released_.insert(round);
  for (auto& entry : entries_) {
    if (entry.round == round) entry.released = true;
  }
}

}  // namespace hansa
