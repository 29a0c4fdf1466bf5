// The nodes' side of the machine: tokens, work, signs of life, uploads, outcomes.
#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "round/machine.hpp"

namespace hansa {
namespace {

constexpr std::size_t kMacBytes = 16;  // of HMAC-SHA256: 128 bits

Refusal unknown_token() {
  return {Refusal::Code::UnknownToken, "this work token was not issued by this run: join, and ask for work", false, 0};
}
Refusal stale(std::string_view what) {
  return {Refusal::Code::StaleRound, fmt::format("{}: drop it and ask for work", what), false, 0};
}

// In time that does not tell how much of a guess was right.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

// Takes "<number>-" off the front.
template <class T>
bool take_number(std::string_view& text, T& number, int base) {
  const auto end = text.find('-');
  if (end == std::string_view::npos) return false;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + end, number, base);
  if (error != std::errc{} || stop != text.data() + end) return false;
  text.remove_prefix(end + 1);
  return true;
}

}  // namespace

// ---- tokens: "<task>-<round>-<attempt>-<node>-<mac>". They carry what they name, so a restart forgets none, and only the
// holder of the run's key can make one.

std::string RoundMachine::token_for(const Token& what) const {
  auto text = fmt::format("{}-{}-{}-{:016x}", what.task == WorkItem::Task::Train ? 't' : 'e', what.round, what.attempt,
                          what.node);
  const auto mac = hmac_sha256(settings_.token_key, text).substr(0, kMacBytes);
  return text + "-" + to_hex(mac);
}

std::variant<RoundMachine::Token, Refusal> RoundMachine::read_token(std::string_view token) const {
  Token what;
  auto rest = token;
  if (rest.size() < 2 || rest[1] != '-' || (rest[0] != 't' && rest[0] != 'e')) return unknown_token();
  what.task = rest[0] == 't' ? WorkItem::Task::Train : WorkItem::Task::Evaluate;
  rest.remove_prefix(2);
  if (!take_number(rest, what.round, 10) || !take_number(rest, what.attempt, 10) || !take_number(rest, what.node, 16)) {
    return unknown_token();
  }
  if (!equal_in_constant_time(token, token_for(what))) return unknown_token();
  return what;
}

std::variant<RoundMachine::Token, Refusal> RoundMachine::current(std::string_view token) const {
  auto read = read_token(token);
  const auto* what = std::get_if<Token>(&read);
  if (!what) return read;
  if (phase_ == Phase::Finished) return Refusal{Refusal::Code::Finished, "the run is finished", false, 0};
  if (phase_ == Phase::Failed) return Refusal{Refusal::Code::Finished, "the run has failed: " + failure_, false, 0};
  if (what->task == WorkItem::Task::Evaluate) {
    const bool now = phase_ == Phase::Evaluating && what->round == evaluating_ && slots_.contains(what->node);
    return now ? read : stale(fmt::format("the evaluation of epoch {} is over", what->round));
  }
  const bool now =
      plan_ && what->round == plan_->round && what->attempt == plan_->attempt && slots_.contains(what->node);
  return now ? read : stale(fmt::format("round {} attempt {} is over", what->round, what->attempt));
}

RoundMachine::Token RoundMachine::training(NodeId node) const {
  return {WorkItem::Task::Train, plan().round, plan().attempt, node};
}

WorkItem RoundMachine::item(const Token& what) const {
  const auto base = what.task == WorkItem::Task::Train ? plan().base : what.round;
  return {what.task, what.round, what.attempt, base, what.node, token_for(what)};
}

// ---- work

std::optional<WorkItem> RoundMachine::work_for(NodeId node) {
  if (phase_ != Phase::Collecting && phase_ != Phase::Evaluating) return std::nullopt;
  const auto found = slots_.find(node);
  if (found == slots_.end() || delivered(node, found->second)) return std::nullopt;
  found->second.asked = true;
  sign_of_life(node);
  return item(phase_ == Phase::Evaluating ? Token{WorkItem::Task::Evaluate, evaluating_, 0, node} : training(node));
}

std::variant<RoundMachine::Redeemed, Refusal> RoundMachine::redeem(std::string_view token) {
  const auto checked = current(token);
  if (const auto* refusal = std::get_if<Refusal>(&checked)) return *refusal;
  const auto& what = std::get<Token>(checked);
  auto& slot = slots_.at(what.node);
  Redeemed redeemed{item(what), std::nullopt};
  if (what.task == WorkItem::Task::Evaluate) {
    if (answers_.contains(what.node)) redeemed.receipt = Receipt{what.round, true, ""};
  } else if (slot.upload) {
    redeemed.receipt = Receipt{what.round, slot.upload->accepted, slot.upload->reason};
  } else if (phase_ == Phase::Folding) {
    return stale(fmt::format("round {} closed without this upload", what.round));
  }
  slot.asked = true;
  sign_of_life(what.node);
  return redeemed;
}

Directive RoundMachine::heartbeat(std::string_view token, const Progress& progress) {
  const auto checked = current(token);
  if (const auto* refusal = std::get_if<Refusal>(&checked)) return {true, refusal->message};
  const auto node = std::get<Token>(checked).node;
  auto& slot = slots_.at(node);
  if (phase_ == Phase::Folding && !slot.upload) return {true, "the round closed without this upload"};
  slot.asked = true;
  slot.progress = progress;
  sign_of_life(node);
  members_.at(node).outcomes.clear();  // it holds this work, so it has seen what came with it
  return {};
}

std::variant<Receipt, Refusal> RoundMachine::received(std::string_view token, const Upload& upload) {
  const auto checked = current(token);
  if (const auto* refusal = std::get_if<Refusal>(&checked)) return *refusal;
  const auto& what = std::get<Token>(checked);
  if (what.task != WorkItem::Task::Train)
    return Refusal{Refusal::Code::BadPayload, "evaluation work takes no upload", false, 0};
  const auto& slot = slots_.at(what.node);
  if (!slot.upload) {
    if (phase_ == Phase::Folding) return stale(fmt::format("round {} closed without this upload", what.round));
    commit(records::Received{what.round, what.attempt, what.node, upload});
    sign_of_life(what.node);
  }
  return Receipt{what.round, slot.upload->accepted, slot.upload->reason};
}

std::optional<Refusal> RoundMachine::evaluated(std::string_view token, const Claims& claims) {
  const auto checked = current(token);
  if (const auto* refusal = std::get_if<Refusal>(&checked)) return *refusal;
  const auto& what = std::get<Token>(checked);
  if (what.task != WorkItem::Task::Evaluate)
    return Refusal{Refusal::Code::BadPayload, "training work is answered by an upload", false, 0};
  if (!answers_.contains(what.node)) commit(records::Evaluated{evaluating_, what.node, claims});
  return std::nullopt;
}

std::vector<Settled> RoundMachine::settled(NodeId node) const {
  std::vector<Settled> list;
  const auto member = members_.find(node);
  if (member == members_.end()) return list;
  for (const auto& outcome : member->second.outcomes) list.push_back(outcome.settled);
  return list;
}

void RoundMachine::sign_of_life(NodeId node) {
  const auto slot = slots_.find(node);
  if (slot != slots_.end()) slot->second.last_sign = clock_.now();
}

}  // namespace hansa
