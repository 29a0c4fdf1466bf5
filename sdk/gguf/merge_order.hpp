// Scores of tokens from the merges of a tokenizer.json: SentencePiece joins whatever two neighbours make a token, the best
// token first, while tokenizer.json lists the pairs. Both do the same where the list has every such pair, token by token, as
// it has when it was made from a SentencePiece model. Called by vocabulary_of(). Throws Error with the pair where it has not.
#pragma once
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace hansa::gguf {

using Merge = std::pair<std::string, std::string>;

// By token; one that no merge makes has none.
std::unordered_map<std::string, float> scores_of(const std::vector<std::pair<std::string, bool>>& tokens,
                                                 const std::vector<Merge>& merges);

}  // namespace hansa::gguf
