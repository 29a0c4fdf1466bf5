#include "gguf/merge_order.hpp"

#include <set>
#include <unordered_set>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::gguf {
namespace {

[[noreturn]] void refuse(std::string_view why) {
  throw Error(fmt::format(
      "tokenizer.json: its merges are not those of a SentencePiece model ({}), so llama.cpp would give other ids; put "
      "tokenizer.model beside it, or export with --merged --out and convert with llama.cpp's own script",
      why));
}

bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }

}  // namespace

std::unordered_map<std::string, float> scores_of(const std::vector<std::pair<std::string, bool>>& tokens,
                                                 const std::vector<Merge>& merges) {
  std::unordered_set<std::string_view> normal;
  for (const auto& [token, is_normal] : tokens)
    if (is_normal) normal.insert(token);
  std::unordered_map<std::string, float> scores;
  std::set<std::pair<std::string_view, std::string_view>> listed;
  std::string last;
  for (const auto& [left, right] : merges) {
    listed.emplace(left, right);
    auto made = left + right;
    if (made == last) continue;
    if (!scores.emplace(made, -static_cast<float>(scores.size() + 1)).second)
      refuse(fmt::format("those that make '{}' do not stand together", made));
    last = std::move(made);
  }
  for (const auto token : normal)
    for (std::size_t at = 1; at < token.size(); ++at) {
      if (!begins_character(token[at])) continue;
      const auto left = token.substr(0, at), right = token.substr(at);
      if (normal.contains(left) && normal.contains(right) && !listed.contains({left, right}))
        refuse(fmt::format("'{}' and '{}' make a token, but are not listed", left, right));
    }
  return scores;
}

}  // namespace hansa::gguf
