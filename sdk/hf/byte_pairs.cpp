#include "hf/byte_pairs.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/code_points.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

const std::string& kBytePairs = kModelWhere;
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
  throw Error(fmt::format("{}: merge {} is {}, not two tokens", kBytePairs, index, merge.dump()));
}

}  // namespace

BytePairs::BytePairs(const nlohmann::json& model) : vocabulary_(read_vocabulary(model)) {
  allow_only(model,
             {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
              "byte_fallback", "ignore_merges", "vocab", "merges"},
             kBytePairs);
  if (!is_absent(model, "dropout") && model.at("dropout") != 0) {
    throw Error(
        fmt::format("{}: dropout = {} is not supported: the same text would have other ids each time; supported: "
                    "null and 0",
                    kBytePairs, model.at("dropout").dump()));
  }
  fuse_unknown_ = flag_of(model, "fuse_unk", false, kBytePairs);
  byte_fallback_ = flag_of(model, "byte_fallback", false, kBytePairs);
  ignore_merges_ = flag_of(model, "ignore_merges", false, kBytePairs);
  if (byte_fallback_) byte_tokens_ = byte_tokens(*this);
  index_characters();
  read_affixes(model);
  read_unknown(model);
  read_merges(model);
}

void BytePairs::index_characters() {
  for (const auto& [token, id] : vocabulary_) {
    if (token.empty() || sequence_length(token[0]) != token.size()) continue;
    std::size_t start = 0;
    id_of_character_.emplace(next_code_point(token, start), id);
  }
}

void BytePairs::read_affixes(const nlohmann::json& model) {
  if (!is_absent(model, "continuing_subword_prefix")) prefix_ = text_of(model, "continuing_subword_prefix", kBytePairs);
  if (!is_absent(model, "end_of_word_suffix")) suffix_ = text_of(model, "end_of_word_suffix", kBytePairs);
}

void BytePairs::read_unknown(const nlohmann::json& model) {
  if (is_absent(model, "unk_token")) return;
  const auto token = text_of(model, "unk_token", kBytePairs);
  unknown_ = find(token);
  if (!unknown_) throw Error(fmt::format("{}: unk_token '{}' is not in the vocabulary", kBytePairs, token));
}

void BytePairs::read_merges(const nlohmann::json& model) {
  if (is_absent(model, "merges") || !model.at("merges").is_array())
    throw Error(kBytePairs + ": merges are missing or not a list");
  const auto& merges = model.at("merges");
  merges_.reserve(merges.size());
  std::uint32_t rank = 0;
  for (const auto& merge : merges) {
    if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version"))
      continue;  // merges.txt's head
    const auto [left, right] = parts_of_merge(merge, rank);
    add_merge(left, right, rank++);
  }
}

void BytePairs::add_merge(const std::string& left, const std::string& right, std::uint32_t rank) {
  if (left.empty() || right.empty()) {
    throw Error(fmt::format("{}: merge {} of '{}' and '{}' is cyclic: its result is one of its own parts", kBytePairs,
                            rank, left, right));
  }
  const auto require = [&](const std::string& token, std::string_view role) {
    const auto id = find(token);
    if (!id)
      throw Error(fmt::format("{}: merge {} of '{}' and '{}': {} '{}' is not in the vocabulary", kBytePairs, rank, left,
                              right, role, token));
    return *id;
  };
  const auto from_left = require(left, "the token"), from_right = require(right, "the token");
  if (!right.starts_with(prefix_)) {
    throw Error(fmt::format("{}: merge {} of '{}' and '{}': the second has not the continuing_subword_prefix '{}'",
                            kBytePairs, rank, left, right, prefix_));
  }
  // Where a pair occurs twice the reference counts the last.
  merges_[pair_key(from_left, from_right)] = {rank, require(left + right.substr(prefix_.size()), "the result")};
}

std::optional<TokenId> BytePairs::find(std::string_view token) const {
  const auto at = vocabulary_.find(token);
  if (at == vocabulary_.end()) return std::nullopt;
  return at->second;
}

void BytePairs::for_each(const std::function<void(std::string_view, TokenId)>& token) const {
  for (const auto& [text, id] : vocabulary_) token(text, id);
}

const BytePairs::Merge* BytePairs::merge_of(TokenId left, TokenId right) const {
  const auto at = merges_.find(pair_key(left, right));
  return at == merges_.end() ? nullptr : &at->second;
}

bool BytePairs::push_bytes(std::string_view character, std::vector<ModelSpace::Symbol>& symbols) const {
  if (!byte_fallback_) return false;
  for (const char byte : character) {
    if (!byte_tokens_[static_cast<unsigned char>(byte)]) return false;
  }
  for (const char byte : character) symbols.push_back({*byte_tokens_[static_cast<unsigned char>(byte)]});
  return true;
}

// `written` becomes the character with its affixes, if it can have any.
std::optional<TokenId> BytePairs::token_of_character(std::string_view piece, std::size_t begin, std::size_t end,
                                                     std::string& written) const {
  if (prefix_.empty() && suffix_.empty()) {
    const auto found = id_of_character_.find(next_code_point(piece, begin));
    return found == id_of_character_.end() ? std::nullopt : std::optional(found->second);
  }
  written = begin > 0 ? prefix_ : std::string();
  written += piece.substr(begin, end - begin);
  if (end == piece.size()) written += suffix_;
  return find(written);
}

// One symbol a character. An unknown one waits until a known one or the end: the reference puts byte tokens before it.
void BytePairs::start_symbols(std::string_view piece, ModelSpace& space) const {
  auto& [symbols, heap, arrivals, written] = space;
  symbols.clear();
  bool unknown_waits = false;
  for (std::size_t begin = 0; begin < piece.size();) {
    const auto end = begin + sequence_length(piece[begin]);
    written.clear();
    const auto token = token_of_character(piece, begin, end, written);
    const auto text = written.empty() ? piece.substr(begin, end - begin) : std::string_view(written);
    begin = end;
    if (token) {
      if (std::exchange(unknown_waits, false)) symbols.push_back({*unknown_});
      symbols.push_back({*token});
    } else if (!push_bytes(text, symbols) && unknown_) {
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

void BytePairs::encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const {
  if (piece.size() >= kNone)
    throw Error("a piece of text of more than 4 GB without a place to split it; break it into lines");
  if (ignore_merges_) {
    if (const auto whole = find(piece)) return ids.push_back(*whole);
  }
  auto& symbols = space.symbols;
  auto& heap = space.heap;
  start_symbols(piece, space);
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
