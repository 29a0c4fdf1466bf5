#include "hf/token_model.hpp"

#include <limits>
#include <unordered_map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/byte_pairs.hpp"
#include "hf/json_file.hpp"
#include "hf/unigram.hpp"
#include "hf/word_piece.hpp"

namespace hansa::hf {
namespace {

std::string type_of(const nlohmann::json& model) {
  if (!is_absent(model, "type")) return text_of(model, "type", kModelWhere);
  if (model.contains("merges")) return "BPE";
  if (model.contains("continuing_subword_prefix")) return "WordPiece";
  if (model.contains("vocab") && model.at("vocab").is_array()) return "Unigram";
  return text_of(model, "type", kModelWhere);  // says that it is missing
}

}  // namespace

std::unique_ptr<TokenModel> read_token_model(const nlohmann::json& model) {
  if (!model.is_object()) throw Error(kModelWhere + " is missing or not an object");
  const auto type = type_of(model);
  if (type == "BPE") return std::make_unique<BytePairs>(model);
  if (type == "Unigram") return std::make_unique<Unigram>(model);
  if (type == "WordPiece") return std::make_unique<WordPiece>(model);
  if (type == "WordLevel") return std::make_unique<WordLevel>(model);
  throw Error(
      fmt::format("{}: type '{}' is not supported; supported: BPE, Unigram, WordLevel, WordPiece", kModelWhere, type));
}

TextMap<TokenId> read_vocabulary(const nlohmann::json& model) {
  if (is_absent(model, "vocab") || !model.at("vocab").is_object())
    throw Error(kModelWhere + ": vocab is missing or not an object");
  const auto& entries = model.at("vocab").get_ref<const nlohmann::json::object_t&>();
  TextMap<TokenId> vocabulary;
  vocabulary.reserve(entries.size());
  std::unordered_map<TokenId, const std::string*> token_of_id;
  token_of_id.reserve(entries.size());
  for (const auto& [token, id] : entries) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max()) {
      throw Error(fmt::format("{}: the id of token '{}' is {}, not a number from 0 to 2147483647", kModelWhere, token,
                              id.dump()));
    }
    const auto number = id.get<TokenId>();
    const auto [at, fresh] = token_of_id.try_emplace(number, &token);
    if (!fresh) {
      throw Error(
          fmt::format("{}: the tokens '{}' and '{}' have the same id {}", kModelWhere, *at->second, token, number));
    }
    vocabulary.emplace(token, number);
  }
  return vocabulary;
}

std::array<std::optional<TokenId>, 256> byte_tokens(const TokenModel& model) {
  std::array<std::optional<TokenId>, 256> ids;
  for (unsigned byte = 0; byte < 256; ++byte) ids[byte] = model.find(fmt::format("<0x{:02X}>", byte));
  return ids;
}

}  // namespace hansa::hf
