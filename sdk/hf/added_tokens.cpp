#include "hf/added_tokens.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/code_points.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

// Where the run of space that ends at `end` begins.
std::size_t space_before(std::string_view text, std::size_t end) {
  while (end > 0) {
    const auto c = last_code_point(text.substr(0, end));
    if (!space_beside_added_token().contains(c)) break;
    do --end;
    while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  }
  return end;
}

std::size_t space_after(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    std::size_t next = begin;
    if (!space_beside_added_token().contains(next_code_point(text, next))) break;
    begin = next;
  }
  return begin;
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  const auto& word = word_beside_added_token();
  if (begin > 0 && word.contains(last_code_point(text.substr(0, begin)))) return false;
  return end == text.size() || !word.contains(next_code_point(text, end));
}

}  // namespace

AddedToken read_added_token(const nlohmann::json& entry) {
  const auto& where = kAddedTokensWhere;
  allow_only(entry, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}, where);
  AddedToken token;
  token.content = text_of(entry, "content", where);
  if (is_absent(entry, "id") || !entry.at("id").is_number_unsigned() ||
      entry.at("id").get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max()) {
    throw Error(
        fmt::format("{}: the id of '{}' is missing or not a number from 0 to 2147483647", where, token.content));
  }
  token.id = entry.at("id").get<TokenId>();
  if (token.content.empty()) throw Error(fmt::format("{}: the token with the id {} is empty", where, token.id));
  token.special = flag_of(entry, "special", false, where);
  token.normalized = flag_of(entry, "normalized", !token.special, where);
  token.single_word = flag_of(entry, "single_word", false, where);
  token.lstrip = flag_of(entry, "lstrip", false, where);
  token.rstrip = flag_of(entry, "rstrip", false, where);
  return token;
}

void AddedTokenMatcher::add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  starts_[static_cast<unsigned char>(pattern[0])] = true;
  std::uint32_t at = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    auto& children = nodes_[at].children;
    const auto child = std::find_if(children.begin(), children.end(), [&](auto entry) { return entry.first == byte; });
    if (child != children.end()) {
      at = child->second;
      continue;
    }
    const auto fresh = static_cast<std::uint32_t>(nodes_.size());
    children.emplace_back(byte, fresh);
    nodes_.emplace_back();
    at = fresh;
  }
  if (!nodes_[at].token) nodes_[at].token = &token;
}

const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, std::size_t at, std::size_t& end) const {
  const AddedToken* found = nullptr;
  std::uint32_t node = 0;
  for (; at < text.size(); ++at) {
    const auto& children = nodes_[node].children;
    const auto byte = static_cast<unsigned char>(text[at]);
    const auto child = std::find_if(children.begin(), children.end(), [&](auto entry) { return entry.first == byte; });
    if (child == children.end()) break;
    node = child->second;
    if (nodes_[node].token) {
      found = nodes_[node].token;
      end = at + 1;
    }
  }
  return found;
}

void AddedTokenMatcher::cut(std::string_view text, std::vector<Segment>& segments) const {
  std::size_t done = 0;  // up to here everything is in a segment
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = 0;
    const auto* token = starts_[static_cast<unsigned char>(text[at])] ? longest_at(text, at, end) : nullptr;
    if (!token) {
      ++at;
      continue;
    }
    const auto search_from = end;
    std::size_t begin = at;
    at = search_from;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    if (token->lstrip) begin = space_before(text, begin);
    if (token->rstrip) end = space_after(text, end);
    if (begin > done) segments.push_back({text.substr(done, begin - done)});
    segments.push_back({text.substr(begin, end - begin), token});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done)});
}

}  // namespace hansa::hf
