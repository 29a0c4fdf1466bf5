#include "hf/byte_pairs.hpp"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/code_points.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

const std::string kWhere = "tokenizer.json: model";
constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

std::uint64_t pair_key(TokenId left, TokenId right) { return std::uint64_t{left} << 32 | right; }

// "a b" in older files, ["a", "b"] in newer ones.
std::pair<std::string, std::string> parts_of_merge(const nlohmann::json& merge, std::size_t index) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const auto space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  throw Error(fmt::format("{}: merge {} is {}, not two tokens", kWhere, index, merge.dump()));
}

void refuse_affixes(const nlohmann::json& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!is_absent(model, key) && model.at(key) != "") {
      throw Error(
          fmt::format("{}: {} = {} is not supported; supported: null and \"\"", kWhere, key, model.at(key).dump()));
    }
  }
  if (!is_absent(model, "dropout") && model.at("dropout") != 0) {
    throw Error(
        fmt::format("{}: dropout = {} is not supported; supported: null and 0", kWhere, model.at("dropout").dump()));
  }
}

}  // namespace

BytePairs::BytePairs(const nlohmann::json& model) {
  if (!model.is_object()) throw Error(kWhere + " is missing or not an object");
  // Files of old versions have no type; they are BPE when they have merges.
  const auto type = is_absent(model, "type") && model.contains("merges") ? "BPE" : text_of(model, "type", kWhere);
  if (type != "BPE") throw Error(fmt::format("{}: type '{}' is not supported; supported: BPE", kWhere, type));
  allow_only(model,
             {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
              "byte_fallback", "ignore_merges", "vocab", "merges"},
             kWhere);
  refuse_affixes(model);
  fuse_unknown_ = flag_of(model, "fuse_unk", false, kWhere);
  byte_fallback_ = flag_of(model, "byte_fallback", false, kWhere);
  ignore_merges_ = flag_of(model, "ignore_merges", false, kWhere);
  read_vocabulary(model);
  read_unknown(model);
  read_merges(model);
}

void BytePairs::read_vocabulary(const nlohmann::json& model) {
  if (is_absent(model, "vocab") || !model.at("vocab").is_object())
    throw Error(kWhere + ": vocab is missing or not an object");
  const auto& entries = model.at("vocab").get_ref<const nlohmann::json::object_t&>();
  vocabulary_.reserve(entries.size());
  std::unordered_map<TokenId, const std::string*> token_of_id;
  token_of_id.reserve(entries.size());
  for (const auto& [token, id] : entries) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max()) {
      throw Error(
          fmt::format("{}: the id of token '{}' is {}, not a number from 0 to 2147483647", kWhere, token, id.dump()));
    }
    const auto number = id.get<TokenId>();
    const auto [at, fresh] = token_of_id.try_emplace(number, &token);
    if (!fresh)
      throw Error(fmt::format("{}: the tokens '{}' and '{}' have the same id {}", kWhere, *at->second, token, number));
    vocabulary_.emplace(token, number);
    if (!token.empty() && sequence_length(token[0]) == token.size()) {
      std::size_t start = 0;
      id_of_character_.emplace(next_code_point(token, start), number);
    }
  }
  if (!byte_fallback_) return;
  for (unsigned byte = 0; byte < 256; ++byte) byte_tokens_[byte] = find(fmt::format("<0x{:02X}>", byte));
}

void BytePairs::read_unknown(const nlohmann::json& model) {
  if (is_absent(model, "unk_token")) return;
  const auto token = text_of(model, "unk_token", kWhere);
  unknown_ = find(token);
  if (!unknown_) throw Error(fmt::format("{}: unk_token '{}' is not in the vocabulary", kWhere, token));
}

void BytePairs::read_merges(const nlohmann::json& model) {
  if (is_absent(model, "merges") || !model.at("merges").is_array())
    throw Error(kWhere + ": merges are missing or not a list");
  const auto& merges = model.at("merges");
  merges_.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const auto [left, right] = parts_of_merge(merges[i], i);
    add_merge(left, right, static_cast<std::uint32_t>(i));
  }
}

void BytePairs::add_merge(const std::string& left, const std::string& right, std::uint32_t rank) {
  if (left.empty() || right.empty()) {
    throw Error(fmt::format("{}: merge {} of '{}' and '{}' is cyclic: its result is one of its own parts", kWhere, rank,
                            left, right));
  }
  const auto require = [&](const std::string& token, std::string_view role) {
    const auto id = find(token);
    if (!id)
      throw Error(fmt::format("{}: merge {} of '{}' and '{}': {} '{}' is not in the vocabulary", kWhere, rank, left,
                              right, role, token));
    return *id;
  };
  const auto from_left = require(left, "the token"), from_right = require(right, "the token");
  // Where a pair occurs twice the reference counts the last.
  merges_[pair_key(from_left, from_right)] = {rank, require(left + right, "the result")};
}

std::optional<TokenId> BytePairs::find(std::string_view token) const {
  const auto at = vocabulary_.find(token);
  if (at == vocabulary_.end()) return std::nullopt;
  return at->second;
}

const BytePairs::Merge* BytePairs::merge_of(TokenId left, TokenId right) const {
  const auto at = merges_.find(pair_key(left, right));
  return at == merges_.end() ? nullptr : &at->second;
}

bool BytePairs::push_bytes(std::string_view character, std::vector<MergeSpace::Symbol>& symbols) const {
  if (!byte_fallback_) return false;
  for (const char byte : character) {
    if (!byte_tokens_[static_cast<unsigned char>(byte)]) return false;
  }
  for (const char byte : character) symbols.push_back({*byte_tokens_[static_cast<unsigned char>(byte)]});
  return true;
}

// One symbol a character. An unknown one waits until a known one or the end: the reference puts byte tokens before it.
void BytePairs::start_symbols(std::string_view piece, std::vector<MergeSpace::Symbol>& symbols) const {
  symbols.clear();
  bool unknown_waits = false;
  for (std::size_t at = 0; at < piece.size();) {
    const auto begin = at;
    const auto found = id_of_character_.find(next_code_point(piece, at));
    if (found != id_of_character_.end()) {
      if (std::exchange(unknown_waits, false)) symbols.push_back({*unknown_});
      symbols.push_back({found->second});
    } else if (!push_bytes(piece.substr(begin, at - begin), symbols) && unknown_) {
      if (unknown_waits && !fuse_unknown_) symbols.push_back({*unknown_});
      unknown_waits = true;
    }
  }
  if (unknown_waits) symbols.push_back({*unknown_});
  for (std::uint32_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = i == 0 ? kNone : i - 1;
    symbols[i].next = i + 1 == symbols.size() ? kNone : i + 1;
  }
}

void BytePairs::encode(std::string_view piece, MergeSpace& space, std::vector<TokenId>& ids) const {
  if (piece.size() >= kNone)
    throw Error("a piece of text of more than 4 GB without a place to split it; break it into lines");
  if (ignore_merges_) {
    if (const auto whole = find(piece)) return ids.push_back(*whole);
  }
  auto& [symbols, heap] = space;
  start_symbols(piece, symbols);
  heap.clear();
  for (std::uint32_t i = 0; i + 1 < symbols.size(); ++i) {
    if (const auto* merge = merge_of(symbols[i].id, symbols[i + 1].id)) heap.push_back({merge->rank, i, merge->merged});
  }
  std::make_heap(heap.begin(), heap.end());
  const auto offer = [&](std::uint32_t left, std::uint32_t right) {
    if (left == kNone || right == kNone) return;
    const auto* merge = merge_of(symbols[left].id, symbols[right].id);
    if (!merge) return;
    heap.push_back({merge->rank, left, merge->merged});
    std::push_heap(heap.begin(), heap.end());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const auto best = heap.back();
    heap.pop_back();
    auto& left = symbols[best.position];
    if (!left.alive || left.next == kNone) continue;
    auto& right = symbols[left.next];
    const auto* merge = merge_of(left.id, right.id);
    if (!merge || merge->merged != best.merged) continue;  // the pair has changed since it was noted
    left.id = best.merged;
    left.next = right.next;
    right.alive = false;
    if (left.next != kNone) symbols[left.next].previous = best.position;
    offer(left.previous, best.position);
    offer(best.position, left.next);
  }
  for (const auto& symbol : symbols) {
    if (symbol.alive) ids.push_back(symbol.id);
  }
}

}  // namespace hansa::hf
