#include "hf/unigram.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/code_points.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

constexpr double kUnknownPenalty = 10;

// A score as the reference reads it: its reader of JSON (serde_json without its feature float_roundtrip) divides the digits by a
// power of ten, each rounded, which is a unit in the last place off now and then. Two ways through a piece are often the same
// tokens in another order, and such a unit decides between them. Writers give the fewest digits that say a number, as fmt does.
double as_the_reference_reads(double score) {
  const auto text = fmt::format("{}", std::abs(score));
  std::uint64_t digits = 0;
  int exponent = 0;
  bool fraction = false;
  const auto end = std::min(text.find('e'), text.size());
  for (const char c : text.substr(0, end)) {
    if (c == '.') {
      fraction = true;
      continue;
    }
    digits = digits * 10 + static_cast<std::uint64_t>(c - '0');
    if (fraction) --exponent;
  }
  if (end < text.size()) exponent += std::stoi(text.substr(end + 1));
  auto number = static_cast<double>(digits);
  for (; exponent < -308; exponent += 308) number /= 1e308;
  const double power = std::stod(fmt::format("1e{}", std::abs(exponent)));
  return std::copysign(exponent < 0 ? number / power : number * power, score);
}

}  // namespace

Unigram::Unigram(const nlohmann::json& model) {
  allow_only(model, {"type", "unk_id", "vocab", "byte_fallback"}, kModelWhere);
  read_tokens(model);
  if (!is_absent(model, "unk_id")) {
    const auto& id = model.at("unk_id");
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= tokens_.size())
      throw Error(fmt::format("{}: unk_id = {} is no id of the {} tokens", kModelWhere, id.dump(), tokens_.size()));
    unknown_ = id.get<TokenId>();
  }
  byte_fallback_ = flag_of(model, "byte_fallback", false, kModelWhere);
  if (byte_fallback_) byte_tokens_ = byte_tokens(*this);
  build_trie();
}

void Unigram::read_tokens(const nlohmann::json& model) {
  if (is_absent(model, "vocab") || !model.at("vocab").is_array())
    throw Error(kModelWhere + ": vocab is missing or not a list");
  double least = std::numeric_limits<double>::infinity();
  for (const auto& entry : model.at("vocab")) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      throw Error(fmt::format("{}: entry {} of vocab is {}, not a token and its score", kModelWhere, tokens_.size(),
                              entry.dump()));
    }
    tokens_.push_back({entry[0].get<std::string>(), as_the_reference_reads(entry[1].get<double>())});
    least = std::min(least, tokens_.back().score);
  }
  if (tokens_.size() >= kNone) throw Error(kModelWhere + ": vocab is too long");
  unknown_score_ = least - kUnknownPenalty;
  ids_.reserve(tokens_.size());
  // Of a token that occurs twice the last one counts, as in the reference.
  for (std::size_t id = 0; id < tokens_.size(); ++id) ids_[tokens_[id].text] = static_cast<TokenId>(id);
}

void Unigram::build_trie() {
  std::vector<std::map<unsigned char, std::uint32_t>> growing(1);
  nodes_.emplace_back();
  for (const auto& [text, id] : ids_) {
    std::uint32_t at = 0;
    for (const char c : text) {
      const auto [child, fresh] =
          growing[at].try_emplace(static_cast<unsigned char>(c), static_cast<std::uint32_t>(growing.size()));
      at = child->second;
      if (!fresh) continue;
      growing.emplace_back();
      nodes_.emplace_back();
    }
    if (!text.empty()) nodes_[at].id = id;
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (growing[i].empty()) continue;
    auto& node = nodes_[i];
    node.first = static_cast<std::uint32_t>(children_.size());
    node.least = growing[i].begin()->first;
    node.width = static_cast<std::uint16_t>(growing[i].rbegin()->first - node.least + 1);
    children_.resize(children_.size() + node.width, kNone);
    for (const auto& [byte, child] : growing[i]) children_[node.first + (byte - node.least)] = child;
  }
}

std::optional<TokenId> Unigram::find(std::string_view token) const {
  const auto at = ids_.find(token);
  if (at == ids_.end()) return std::nullopt;
  return at->second;
}

void Unigram::for_each(const std::function<void(std::string_view, TokenId)>& token) const {
  for (std::size_t id = 0; id < tokens_.size(); ++id) token(tokens_[id].text, static_cast<TokenId>(id));
}

// Of ways with the same score the first found stays: the one with the longest last token.
void Unigram::find_ways(std::string_view piece, std::vector<ModelSpace::Arrival>& arrivals) const {
  arrivals.assign(piece.size() + 1, {0, kNone, 0});
  const auto offer = [&](std::size_t from, std::size_t to, double score, TokenId id) {
    auto& arrival = arrivals[to];
    if (arrival.from == kNone || score > arrival.score) arrival = {score, static_cast<std::uint32_t>(from), id};
  };
  for (std::size_t from = 0; from < piece.size();) {
    const auto score = arrivals[from].score;
    const auto next = from + sequence_length(piece[from]);
    bool character_known = false;
    std::uint32_t node = 0;
    for (std::size_t to = from; to < piece.size();) {
      node = child(node, static_cast<unsigned char>(piece[to++]));
      if (node == kNone) break;
      const auto id = nodes_[node].id;
      if (id == kNone) continue;
      offer(from, to, tokens_[id].score + score, id);
      character_known = character_known || to == next;
    }
    if (!character_known) {
      if (!unknown_)
        throw Error(
            fmt::format("{}: '{}' has no token, and there is no unk_id", kModelWhere, piece.substr(from, next - from)));
      offer(from, next, unknown_score_ + score, *unknown_);
    }
    from = next;
  }
}

// A stretch of the piece: a token, or several unknown characters.
void Unigram::push(std::string_view text, std::vector<TokenId>& ids) const {
  if (const auto id = find(text)) return ids.push_back(*id);
  if (byte_fallback_) {
    const auto known = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)].has_value(); };
    if (std::all_of(text.begin(), text.end(), known)) {
      for (const char byte : text) ids.push_back(*byte_tokens_[static_cast<unsigned char>(byte)]);
      return;
    }
  }
  if (!unknown_) throw Error(fmt::format("{}: '{}' has no token, and there is no unk_id", kModelWhere, text));
  ids.push_back(*unknown_);
}

void Unigram::encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const {
  if (piece.empty()) return;
  if (piece.size() >= kNone)
    throw Error("a piece of text of more than 4 GB without a place to split it; break it into lines");
  auto& arrivals = space.arrivals;
  find_ways(piece, arrivals);
  // The way goes from the end to the beginning: turned round into positions, forwards.
  auto& stops = space.symbols;  // only `previous` (from) and `next` (to) are used
  stops.clear();
  for (auto to = static_cast<std::uint32_t>(piece.size()); to > 0;) {
    const auto& arrival = arrivals[to];
    const bool unknown = unknown_ && arrival.id == *unknown_;
    if (unknown && !stops.empty() && !stops.back().alive) {
      stops.back().previous = arrival.from;  // one with its neighbour
    } else {
      stops.push_back({arrival.id, arrival.from, to, !unknown});
    }
    to = arrival.from;
  }
  for (auto stop = stops.rbegin(); stop != stops.rend(); ++stop) {
    if (stop->alive) {
      ids.push_back(stop->id);
    } else {
      push(piece.substr(stop->previous, stop->next - stop->previous), ids);
    }
  }
}

}  // namespace hansa::hf
