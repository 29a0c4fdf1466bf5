#include "hf/word_piece.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/code_points.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {

WordLevel::WordLevel(const nlohmann::json& model)
    : WordLevel((allow_only(model, {"type", "vocab", "unk_token"}, kModelWhere), model), ReadOnly{}) {}

// Without its unknown token in the vocabulary a model may still do: it fails at the first unknown word.
WordLevel::WordLevel(const nlohmann::json& model, ReadOnly)
    : vocabulary_(read_vocabulary(model)), unknown_token_(text_of(model, "unk_token", kModelWhere)) {
  unknown_ = find(unknown_token_);
}

std::optional<TokenId> WordLevel::find(std::string_view token) const {
  const auto at = vocabulary_.find(token);
  if (at == vocabulary_.end()) return std::nullopt;
  return at->second;
}

void WordLevel::for_each(const std::function<void(std::string_view, TokenId)>& token) const {
  for (const auto& [text, id] : vocabulary_) token(text, id);
}

void WordLevel::push_unknown(std::string_view piece, std::vector<TokenId>& ids) const {
  if (!unknown_) {
    throw Error(
        fmt::format("{}: '{}' is not in the vocabulary, and neither is the unk_token '{}' that would stand for it",
                    kModelWhere, piece.substr(0, 100), unknown_token_));
  }
  ids.push_back(*unknown_);
}

void WordLevel::encode(std::string_view piece, ModelSpace&, std::vector<TokenId>& ids) const {
  if (const auto id = find(piece)) return ids.push_back(*id);
  push_unknown(piece, ids);
}

WordPiece::WordPiece(const nlohmann::json& model)
    : WordLevel(
          (allow_only(model, {"type", "vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"},
                      kModelWhere),
           model),
          ReadOnly{}),
      prefix_(text_of(model, "continuing_subword_prefix", kModelWhere)) {
  const auto& most = model.at("max_input_chars_per_word");
  if (!most.is_number_unsigned())
    throw Error(fmt::format("{}: max_input_chars_per_word = {} is not a count", kModelWhere, most.dump()));
  most_characters_ = most.get<std::size_t>();
  for_each([&](std::string_view token, TokenId) { longest_ = std::max(longest_, token.size()); });
}

void WordPiece::encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const {
  const auto characters = static_cast<std::size_t>(
      std::count_if(piece.begin(), piece.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
  if (characters > most_characters_) return push_unknown(piece, ids);
  const auto before = ids.size();
  auto& text = space.text;
  for (std::size_t start = 0; start < piece.size();) {
    text = start > 0 ? prefix_ : std::string();
    const auto affix = text.size();
    text += piece.substr(start, longest_ > affix ? longest_ - affix : 0);
    std::optional<TokenId> id;
    while (text.size() > affix && !(id = find(text))) text.pop_back();  // a broken character is no token
    if (!id) {
      ids.resize(before);
      return push_unknown(piece, ids);
    }
    ids.push_back(*id);
    start += text.size() - affix;
  }
}

}  // namespace hansa::hf
