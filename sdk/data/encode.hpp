// A draft as tokens, of which each knows whether it is to be learnt. The whole text is encoded at once, as it would be at
// inference; a token that reaches over the border of a piece that counts, counts. Pure: any thread that the tokenizer allows.
#pragma once
#include <cstdint>
#include <vector>

#include <hansa/tokenizer.hpp>

#include "data/draft.hpp"

namespace hansa::data {

// A token as it is kept: itself where it counts as a label, else its complement, which is negative.
constexpr std::int32_t kept(std::int64_t id, bool counts) {
  return counts ? static_cast<std::int32_t>(id) : ~static_cast<std::int32_t>(id);
}
constexpr std::int64_t id_of(std::int32_t token) { return token < 0 ? ~token : token; }

struct Encoded {
  std::vector<std::int32_t> tokens;
  std::uint64_t bytes = 0;    // UTF-8 of the pieces that count, without a first token's
  std::uint32_t counted = 0;  // labels that stand for them: not the end of a text, not a first token
  std::int32_t label = -1;
};
// `longest` concerns texts to be classified, which the post-processor cuts; others keep their length.
Encoded encode(const Draft&, const Tokenizer&, std::int64_t longest);

// The text of the pieces with special tokens as they are written.
std::string text_of(const std::vector<Piece>&, const Tokenizer&);

}  // namespace hansa::data
