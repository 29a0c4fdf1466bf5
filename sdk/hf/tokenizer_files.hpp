// Which files of a directory make its tokenizer, and what the small ones beside say: added tokens, the names of special ones.
// Called while a tokenizer is opened. Throws Error naming file and key.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace hansa::hf {

enum class TokenizerForm { Json, SentencePiece, VocabularyAndMerges };  // the first that there is counts
std::optional<TokenizerForm> tokenizer_form(const std::filesystem::path& directory);
// The files that a form is read from, those that may be missing included.
std::vector<std::string> files_of(TokenizerForm form);

// tokenizer_config.json, over it what only special_tokens_map.json has; an empty object when there is neither.
nlohmann::json read_tokenizer_config(const std::filesystem::path& directory);
// The token that a key such as "eos_token" names: a text or an object with `content`.
std::optional<std::string> token_named_by(const nlohmann::json& tokenizer_config, const char* key);

// For forms other than tokenizer.json: the entries of an `added_tokens` list, by ascending id, from added_tokens_decoder,
// added_tokens.json and the special tokens that have a name. `find` gives the id of a token of the vocabulary.
nlohmann::json added_tokens_beside(const std::filesystem::path& directory, const nlohmann::json& tokenizer_config,
                                   const std::function<std::optional<std::int64_t>(const std::string&)>& find);
// vocab.json and merges.txt as the tokenizer.json that they stand for: GPT-2's byte-level byte pairs.
nlohmann::json read_vocabulary_and_merges(const std::filesystem::path& directory,
                                          const nlohmann::json& tokenizer_config);

}  // namespace hansa::hf
